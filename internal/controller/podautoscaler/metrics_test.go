package podautoscaler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func TestFiguresHaveKubernetesNames(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		reg := prometheus.NewPedanticRegistry()
		shown := func() (out []string) {
			families, err := reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.Metric {
					var labels []string
					for _, l := range m.Label {
						labels = append(labels, l.GetName()+"="+l.GetValue())
					}
					n := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
					out = append(out, fmt.Sprintf("%s{%s} %v", strings.TrimPrefix(f.GetName(), "horizontal_pod_autoscaler_controller_"), strings.Join(labels, ","), n))
				}
			}
			return out
		}
		expect := func(want ...string) {
			t.Helper()
			got := shown()
			for _, w := range want {
				if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, w) }) {
					t.Errorf("no %s in\n%s", w, strings.Join(got, "\n"))
				}
			}
		}
		l := begin(c, 1)
		l.metrics = NewMetrics(reg)
		l.work.Store(50)
		l.start()
		c.Pass(6 * time.Minute)
		expect("num_horizontal_pod_autoscalers{} 1", "desired_replicas{hpa_name=web,namespace=default} 1", "reconciliations_total{action=none,error=none} ",
			"metric_computation_total{action=none,error=none,metric_type=Resource} ", "metric_computation_duration_seconds{action=none,error=none,metric_type=Resource} ")
		l.work.Store(100)
		c.Pass(5 * time.Second)
		expect("desired_replicas{hpa_name=web,namespace=default} 2", "reconciliations_total{action=scale_up,error=none} 1", "reconciliation_duration_seconds{action=scale_up,error=none} 1",
			"metric_computation_total{action=scale_up,error=none,metric_type=Resource} 1")
		l.away.Store(true)
		c.Pass(5 * time.Second)
		expect("reconciliations_total{action=none,error=internal} ", "metric_computation_total{action=none,error=internal,metric_type=Resource} ")
		ct.Delete[*autoscalingv2.HorizontalPodAutoscaler](c, ns, "web", metav1.DeleteOptions{})
		c.Pass(time.Second)
		expect("num_horizontal_pod_autoscalers{} 0")
		if slices.ContainsFunc(shown(), func(s string) bool { return strings.HasPrefix(s, "desired_replicas") }) {
			t.Error("what an autoscaler wants is shown although it is gone")
		}
	})
}

func TestBlame(t *testing.T) {
	if got := blame(fmt.Errorf("reading it: %w", &specError{fmt.Errorf("unknown kind")})); got != badSpec {
		t.Errorf("an error of the spec is %q", got)
	}
	if got := blame(errNoPods); got != internal {
		t.Errorf("another error is %q", got)
	}
}
