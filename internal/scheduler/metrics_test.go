package scheduler

import (
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// series returns the value of each series, of a histogram its count, by name and labels: scheduler_pending_pods{queue=gated}.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += "{" + l.GetName() + "=" + l.GetValue() + "}"
			}
			out[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestMetricsHaveKubernetesNamesAndLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		c := &cluster{t: t, Client: clienttest.New(t)}
		c.s = New(Config{Client: c.Client, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: NewMetrics(reg)})
		defer c.start(c.s)()
		c.node("n1", "2")
		priority := int32(100)
		c.pod("small", "1")
		c.pod("gated", "1", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}} })
		c.on("small", "n1")
		c.pod("large", "8")
		synctest.Wait()
		c.pod("important", "2", func(p *corev1.Pod) { p.Spec.Priority = &priority })
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		got := series(t, reg)
		for name, want := range map[string]float64{
			"scheduler_pending_pods{queue=active}":                                                       0,
			"scheduler_pending_pods{queue=gated}":                                                        1,
			"scheduler_pending_pods{queue=unschedulable}":                                                2,
			"scheduler_schedule_attempts_total{profile=default-scheduler}{result=scheduled}":             1,
			"scheduler_schedule_attempts_total{profile=default-scheduler}{result=unschedulable}":         2,
			"scheduler_scheduling_attempt_duration_seconds{profile=default-scheduler}{result=scheduled}": 1,
			"scheduler_pod_scheduling_sli_duration_seconds{attempts=1}":                                  1,
			"scheduler_pod_scheduling_attempts":                                                          1,
			"scheduler_scheduling_algorithm_duration_seconds":                                            3,
			"scheduler_preemption_attempts_total":                                                        1,
			"scheduler_preemption_victims":                                                               1,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s is %g (%v), want %g", name, value, ok, want)
			}
		}
		if t.Failed() {
			t.Log(got)
		}
	})
}
