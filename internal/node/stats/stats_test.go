package stats

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// at is a sample some seconds after noon: the node has used that many CPU seconds, and its one container "c", which began at
// began, used seconds.
func at(seconds float64, node, container float64, began time.Time) *Sample {
	when := noon.Add(time.Duration(seconds * float64(time.Second)))
	cpu := func(s float64) *stats.CPUStats {
		return &stats.CPUStats{Time: metav1.NewTime(when), UsageCoreNanoSeconds: ptr(uint64(s * 1e9))}
	}
	memory := &stats.MemoryStats{Time: metav1.NewTime(when), WorkingSetBytes: ptr(uint64(5 << 20)), UsageBytes: ptr(uint64(6 << 20))}
	return &Sample{At: when, Summary: stats.Summary{
		Node: stats.NodeStats{NodeName: "n", StartTime: metav1.NewTime(noon.Add(-time.Hour)), CPU: cpu(node), Memory: memory},
		Pods: []stats.PodStats{{
			PodRef: stats.PodReference{Namespace: "d", Name: "p", UID: "u"}, StartTime: metav1.NewTime(began), CPU: cpu(container), Memory: memory,
			Containers: []stats.ContainerStats{{Name: "c", StartTime: metav1.NewTime(began), CPU: cpu(container), Memory: memory}},
		}},
	}}
}

func TestRates(t *testing.T) {
	early, late := noon.Add(-time.Hour), noon.Add(8*time.Second)
	for _, test := range []struct {
		name     string
		old, new *Sample
		node     string // cores of the node
		pod      string // cores and window of the container
	}{
		{"two readings", at(0, 100, 10, early), at(10, 115, 12, early), "1500m", "200m 10s"},
		{"a container that began between the two counts from its beginning", at(0, 100, 10, early), at(10, 115, 1, late), "1500m", "500m 2s"},
		{"one that has just begun cannot be told", at(0, 100, 10, early), at(8.05, 100, 1, late), "0", ""},
		{"a counter that went back is no rate", at(0, 100, 10, early), at(10, 99, 9, early), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Pair{test.old, test.new}
			node, pods := NodeUsage(p), PodUsage(p)
			got := ""
			if node != nil {
				got = node.Usage.Cpu().String()
			}
			if got != test.node {
				t.Errorf("node uses %q, want %q", got, test.node)
			}
			got = ""
			if len(pods) > 0 {
				c := pods[0].Containers[0]
				got = c.Usage.Cpu().String() + " " + pods[0].Window.Duration.String()
				if m := c.Usage.Memory().String(); m != "5Mi" {
					t.Errorf("memory %s", m)
				}
			}
			if got != test.pod {
				t.Errorf("the container uses %q, want %q", got, test.pod)
			}
			s := Rates(p)
			if c := s.Pods[0].Containers[0].CPU.UsageNanoCores; (c == nil) != (test.pod == "") {
				t.Errorf("the summary's rate: %v", c)
			}
			if test.new.Summary.Pods[0].Containers[0].CPU.UsageNanoCores != nil {
				t.Error("the sample was changed")
			}
		})
	}
}

func TestBefore(t *testing.T) {
	var samples []*Sample
	for _, s := range []float64{-100, -40, -20, -5, -0.5} {
		samples = append(samples, at(s, 0, 0, noon))
	}
	for _, test := range []struct {
		from, to int
		want     float64
	}{
		{0, 5, -20}, // the newest that is settled
		{3, 5, -5},  // none is: the oldest that is not too close
		{4, 5, 0}, {0, 1, 0},
	} {
		got := 0.0
		if s := before(samples[test.from:test.to], noon); s != nil {
			got = s.At.Sub(noon).Seconds()
		}
		if got != test.want {
			t.Errorf("among %d..%d: the one of %vs, want %vs", test.from, test.to, got, test.want)
		}
	}
}

// Who asks first waits a second; who asks soon after shares that; nothing is measured between questions.
func TestCollectorMeasuresWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		taken := 0
		c := Collector{Measure: func(context.Context) (*Sample, error) {
			taken++
			return &Sample{At: time.Now()}, nil
		}}
		ask := func(measurements int, window time.Duration) {
			t.Helper()
			p, err := c.Rates(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := p.New.At.Sub(p.Old.At).Round(100 * time.Millisecond); got != window || taken != measurements {
				t.Errorf("window %v after %d measurements, want %v after %d", got, taken, window, measurements)
			}
		}
		ask(2, time.Second)
		ask(2, time.Second)
		time.Sleep(15 * time.Second)
		ask(3, 15*time.Second)
		time.Sleep(time.Hour)
		if taken != 3 {
			t.Error("measured while nobody asked")
		}
		ask(5, time.Second)
	})
}

func TestCollectorGivesUpWithItsAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Collector{Measure: func(context.Context) (*Sample, error) { return &Sample{At: time.Now()}, nil }}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := c.Rates(ctx); err == nil {
			t.Error("an answer that nobody could have waited for")
		}
	})
}

func TestPrometheus(t *testing.T) {
	s := at(0, 100.5, 10, noon.Add(-time.Hour)).Summary
	var resource strings.Builder
	if err := Resource(&resource, &s); err != nil {
		t.Fatal(err)
	}
	const ms = "1772625600000"
	for _, want := range []string{
		"# TYPE container_cpu_usage_seconds_total counter\ncontainer_cpu_usage_seconds_total{container=\"c\",namespace=\"d\",pod=\"p\"} 10 " + ms + "\n",
		"container_memory_working_set_bytes{container=\"c\",namespace=\"d\",pod=\"p\"} 5242880 " + ms + "\n",
		"container_start_time_seconds{container=\"c\",namespace=\"d\",pod=\"p\"} 1772622000.000\n",
		"\nnode_cpu_usage_seconds_total 100.5 " + ms + "\n",
		"\npod_memory_working_set_bytes{namespace=\"d\",pod=\"p\"} 5242880 " + ms + "\n",
		"\nresource_scrape_error 0\n",
	} {
		if !strings.Contains(resource.String(), want) {
			t.Errorf("no %q in\n%s", want, resource.String())
		}
	}
	f := family{name: "m", kind: "gauge", help: "h"}
	f.add("1", time.Time{}, "l", "a\"b\\c\nd")
	if want := `m{l="a\"b\\c\nd"} 1`; f.lines[0] != want {
		t.Errorf("%s, want %s", f.lines[0], want)
	}
}

// Pushes are about the last two seconds, so that a load shows as a whole within three; measuring takes a twentieth of the time at most.
func TestPushesFollowTheLoad(t *testing.T) {
	for _, test := range []struct {
		takes  time.Duration
		pushes int // in ten seconds
	}{{0, 10}, {100 * time.Millisecond, 4}} {
		synctest.Test(t, func(t *testing.T) {
			began, used := time.Now(), 0.0
			c := Collector{Measure: func(context.Context) (*Sample, error) {
				time.Sleep(test.takes)
				if time.Since(began) > 5*time.Second {
					used = time.Since(began).Seconds() - 5 // a whole core since then
				}
				s := at(0, used, used, began)
				s.At, s.Summary.Node.StartTime = time.Now(), metav1.NewTime(began.Add(-time.Hour))
				for _, cpu := range []*stats.CPUStats{s.Summary.Node.CPU, s.Summary.Pods[0].CPU, s.Summary.Pods[0].Containers[0].CPU} {
					cpu.Time = metav1.NewTime(s.At)
				}
				return s, nil
			}}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+100*time.Millisecond)
			defer cancel()
			n, whole := 0, time.Duration(0)
			if err := c.Push(ctx, func(p Pair) error {
				n++
				if w := p.New.At.Sub(p.Old.At); w < time.Second || w > 2500*time.Millisecond && test.takes == 0 {
					t.Errorf("a push about %v", w)
				}
				if cores := NodeUsage(p).Usage.Cpu(); cores.MilliValue() == 1000 && whole == 0 {
					whole = time.Since(began) - 5*time.Second
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if n < test.pushes || n > test.pushes+1 {
				t.Errorf("%d pushes where measuring takes %v, want %d", n, test.takes, test.pushes)
			}
			if test.takes == 0 && (whole == 0 || whole > 3*time.Second) {
				t.Errorf("the whole load shows after %v, want 3s at most", whole)
			}
		})
	}
}
