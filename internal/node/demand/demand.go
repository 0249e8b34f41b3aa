// Package demand remembers what containers used while their node's agent ran, and says which requests would fit that.
//
// What flows through it: once in [Period] the agent adds what each container used on average since ([Record.Add]); processor time and memory go
// into a [Histogram] each, in memory alone; knarr advise reads those of all nodes, merges what belongs to one workload ([Use.Merge]) and asks for
// [Use.Advise].
//
// What must stay true: a container costs some hundred bytes, however long it runs, and is forgotten when it has been gone for [forget]; an agent that
// is restarted begins anew, and what it says names since when it knows; nothing here changes a request. All but Record is pure. Tests:
// TestQuantiles, TestMergedHistogramsSayWhatOneWouldHave, TestAdvice, TestContainersThatAreGoneAreForgotten.
package demand

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/amount"
)

const (
	// Period is the time between two samples, each of which is the mean of that time.
	Period = time.Minute
	// forget is how long a container is remembered that is gone.
	forget = time.Hour
	// step is the ratio of a bucket's bound to that of the one before: what a histogram says is a tenth too much at most.
	step = 1.1
)

// Histogram counts values by their size. The zero value is empty.
type Histogram struct {
	// Counts are how many values each bucket has: bucket 0 those up to 1, bucket i those up to step to the power of i.
	Counts map[int]uint32 `json:"counts,omitempty"`
	Max    int64          `json:"max"`
}

// Add counts a value, which is not negative.
func (h *Histogram) Add(v int64) {
	if h.Counts == nil {
		h.Counts = map[int]uint32{}
	}
	h.Counts[bucketOf(v)]++
	h.Max = max(h.Max, v)
}

func bucketOf(v int64) int {
	if v <= 1 {
		return 0
	}
	return int(math.Ceil(math.Log(float64(v)) / math.Log(step)))
}

// Merge adds what o has counted.
func (h *Histogram) Merge(o Histogram) {
	for b, n := range o.Counts {
		if h.Counts == nil {
			h.Counts = map[int]uint32{}
		}
		h.Counts[b] += n
	}
	h.Max = max(h.Max, o.Max)
}

// Total is how many values there are.
func (h *Histogram) Total() (n uint64) {
	for _, c := range h.Counts {
		n += uint64(c)
	}
	return n
}

// Quantile returns what a share q of the values is at most, a tenth too much at worst; 0 without values.
func (h *Histogram) Quantile(q float64) int64 {
	var buckets []int
	for b := range h.Counts {
		buckets = append(buckets, b)
	}
	slices.Sort(buckets)
	left := uint64(math.Ceil(q * float64(h.Total())))
	for _, b := range buckets {
		n := uint64(h.Counts[b])
		if n >= left {
			return min(h.Max, int64(math.Pow(step, float64(b))))
		}
		left -= n
	}
	return h.Max
}

// Use is what a container used, or those of one name in the pods of one workload.
type Use struct {
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Container string    `json:"container"`
	Since     time.Time `json:"since"`  // of the first sample
	Until     time.Time `json:"until"`  // of the last one
	CPU       Histogram `json:"cpu"`    // thousandths of a processor
	Memory    Histogram `json:"memory"` // working set, KiB
}

// Merge adds what another container used.
func (u *Use) Merge(o Use) {
	if u.Since.IsZero() || o.Since.Before(u.Since) {
		u.Since = o.Since
	}
	if o.Until.After(u.Until) {
		u.Until = o.Until
	}
	u.CPU.Merge(o.CPU)
	u.Memory.Merge(o.Memory)
}

// Record is what the containers of one node used. The zero value is empty.
type Record struct {
	mu   sync.Mutex
	uses map[key]*Use
}

type key struct{ namespace, pod, container string }

// Add notes what pods used until at, and forgets containers that have long been gone.
func (r *Record) Add(pods []metrics.PodMetrics, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses == nil {
		r.uses = map[key]*Use{}
	}
	for i := range pods {
		p := &pods[i]
		for j := range p.Containers {
			c := &p.Containers[j]
			k := key{p.Namespace, p.Name, c.Name}
			u := r.uses[k]
			if u == nil {
				u = &Use{Namespace: p.Namespace, Pod: p.Name, Container: c.Name, Since: at}
				r.uses[k] = u
			}
			u.Until = at
			u.CPU.Add(amount.Milli(c.Usage[corev1.ResourceCPU]))
			u.Memory.Add(amount.Units(c.Usage[corev1.ResourceMemory]) >> 10)
		}
	}
	for k, u := range r.uses {
		if at.Sub(u.Until) > forget {
			delete(r.uses, k)
		}
	}
}

// Uses returns what is remembered, by namespace, pod and container.
func (r *Record) Uses() []Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Use{}
	for _, u := range r.uses {
		c := Use{Namespace: u.Namespace, Pod: u.Pod, Container: u.Container}
		c.Merge(*u) // a copy: the maps go on changing
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Use) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	return out
}
