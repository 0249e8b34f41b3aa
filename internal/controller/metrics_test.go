package controller_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller"
)

// TestQueuesAreMeasuredUnderKubernetesNames: one worker fails once on the first key, takes 3 s for it the second time, and is then busy with
// the second key while the third one waits.
func TestQueuesAreMeasuredUnderKubernetesNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New(t)
		calls := 0
		rec := reconcileFunc(func(ctx context.Context, k api.Key) (time.Duration, error) {
			switch calls++; calls {
			case 1:
				return 0, errors.New("not yet")
			case 2:
				time.Sleep(3 * time.Second)
				return 0, nil
			}
			<-ctx.Done()
			return 0, nil
		})
		m := controller.NewMetrics()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		run := func() {
			r := controller.Runner{Client: c, Log: slog.New(slog.DiscardHandler), Metrics: m}
			done <- r.Run(ctx, controller.Controller{Name: "test", Watches: []controller.Watch{{Resource: api.ConfigMaps}}, Reconciler: rec})
		}
		go run()
		configMap := func(name string) {
			clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
		}
		configMap("a")
		time.Sleep(time.Second)
		configMap("b")
		configMap("c")
		time.Sleep(4*time.Second + 5*time.Millisecond) // with the pause after the failure, b has been worked on for 2 s
		check := func(when string, want map[string]float64) {
			t.Helper()
			got := gather(t, m)
			for name, v := range want {
				if got[name] != v {
					t.Errorf("%s: workqueue_%s is %v, want %v", when, name, got[name], v)
				}
			}
		}
		check("at work", map[string]float64{
			"adds_total": 4, "retries_total": 1, "depth": 1, "queue_duration_seconds": 3, "work_duration_seconds": 2,
			"unfinished_work_seconds": 2, "longest_running_processor_seconds": 2,
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}

		// The next time this server leads, the figures go on.
		ctx, cancel = context.WithCancel(t.Context())
		go run()
		time.Sleep(time.Second)
		check("leading again", map[string]float64{"adds_total": 7, "depth": 2})
		cancel()
		<-done
	})
}

// gather returns the figures of the queue called test: values, and how often something was observed.
func gather(t *testing.T, m *controller.Metrics) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
	out := map[string]float64{}
	for _, f := range families {
		one := f.Metric[0]
		if one.Label[0].GetName() != "name" || one.Label[0].GetValue() != "test" {
			t.Errorf("%s has labels %v", f.GetName(), one.Label)
		}
		out[strings.TrimPrefix(f.GetName(), "workqueue_")] = one.GetCounter().GetValue() + one.GetGauge().GetValue() + float64(one.GetHistogram().GetSampleCount())
	}
	return out
}
