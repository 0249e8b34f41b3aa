package demand

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"pgregory.net/rapid"
)

func TestQuantiles(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %d", got)
	}
	for v := range int64(1000) {
		h.Add(v)
	}
	for _, test := range []struct {
		q         float64
		low, high int64
	}{{0.5, 499, 550}, {0.95, 949, 999}, {1, 999, 999}, {0, 0, 1}} {
		if got := h.Quantile(test.q); got < test.low || got > test.high {
			t.Errorf("the quantile %v is %d, want %d to %d", test.q, got, test.low, test.high)
		}
	}
}

// A histogram says no less than the truth, and a tenth more at most, whatever the values and however they were divided and sent.
func TestMergedHistogramsSayWhatOneWouldHave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 1, 50).Draw(t, "values")
		var parts [3]Histogram
		var whole Histogram
		for i, v := range values {
			whole.Add(v)
			parts[i%3].Add(v)
		}
		var merged Histogram
		for _, p := range parts {
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			var got Histogram
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			merged.Merge(got)
		}
		for _, q := range []float64{0.1, 0.5, 0.95, 1} {
			if a, b := whole.Quantile(q), merged.Quantile(q); a != b {
				t.Errorf("the quantile %v is %d of the whole and %d of its parts", q, a, b)
			}
			n := 0 // how many values are no more than the quantile
			for _, v := range values {
				if v <= whole.Quantile(q)+1 { // bounds are rounded down
					n++
				}
			}
			if float64(n) < q*float64(len(values)) {
				t.Errorf("%d of %d values are up to the quantile %v", n, len(values), q)
			}
		}
	})
}

func using(pod, cpu, memory string) metrics.PodMetrics {
	return metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pod}, Containers: []metrics.ContainerMetrics{
		{Name: "c", Usage: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}}}}
}

func TestAdvice(t *testing.T) {
	var r Record
	at := time.Unix(1e6, 0)
	for i := range 100 {
		cpu, memory := "100m", "64Mi"
		if i%50 == 0 { // busy for two minutes of a hundred
			cpu, memory = "1500m", "200Mi"
		}
		r.Add([]metrics.PodMetrics{using("a", cpu, memory), using("b", "0", "1Mi")}, at)
		at = at.Add(Period)
	}
	uses := r.Uses()
	if len(uses) != 2 || uses[0].Pod != "a" {
		t.Fatalf("uses %+v", uses)
	}
	a := uses[0].Advise()
	if a.CPU < 115 || a.CPU > 127 || a.Memory != 200<<10*115/100 || a.MaxCPU != 1500 || a.MedianMemory < 64<<10 || a.MedianMemory > 71<<10 || a.Thin || a.Samples != 100 || a.Over != 100*time.Minute {
		t.Errorf("advice %+v", a)
	}
	if b := uses[1].Advise(); b.CPU != leastCPU || b.Memory != leastMemory {
		t.Errorf("advice for what uses next to nothing %+v", b)
	}
	var both Use
	both.Merge(uses[0])
	both.Merge(uses[1])
	if m := both.Advise(); m.Samples != 200 || m.MaxCPU != 1500 || m.Over != 100*time.Minute {
		t.Errorf("of both pods %+v", m)
	}
	if few := (&Use{}); !few.Advise().Thin {
		t.Error("advice from nothing is not thin")
	}
}

func TestContainersThatAreGoneAreForgotten(t *testing.T) {
	var r Record
	at := time.Unix(1e6, 0)
	r.Add([]metrics.PodMetrics{using("a", "1", "1Gi"), using("b", "1", "1Gi")}, at)
	r.Add([]metrics.PodMetrics{using("a", "1", "1Gi")}, at.Add(forget))
	if n := len(r.Uses()); n != 2 {
		t.Errorf("%d are known, want both for an hour", n)
	}
	r.Add([]metrics.PodMetrics{using("a", "1", "1Gi")}, at.Add(forget+Period))
	if u := r.Uses(); len(u) != 1 || u[0].Pod != "a" || u[0].CPU.Total() != 3 || !u[0].Since.Equal(at) {
		t.Errorf("uses %+v", u)
	}
}
