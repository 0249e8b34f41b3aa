package stats

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// rate is the processor time used per second, over a window.
type rate struct {
	cores  uint64 // nanocores
	window time.Duration
}

// rateOf compares two readings of a counter that began at began; old may be nil. A counter that began after old was read counts
// from its beginning, as for a container that has just started.
func rateOf(next, old *stats.CPUStats, began metav1.Time) (rate, bool) {
	if next == nil || next.UsageCoreNanoSeconds == nil {
		return rate{}, false
	}
	var used uint64
	since, least := began.Time, shortest/10
	if old != nil && old.UsageCoreNanoSeconds != nil && !old.Time.Time.Before(began.Time) {
		since, least, used = old.Time.Time, 1, *old.UsageCoreNanoSeconds
	}
	window := next.Time.Time.Sub(since)
	if since.IsZero() || window < least || window > longest || *next.UsageCoreNanoSeconds < used {
		return rate{}, false // nothing to compare with that would tell about now
	}
	return rate{uint64(float64(*next.UsageCoreNanoSeconds-used) * float64(time.Second) / float64(window)), window}, true
}

// Rates returns the newer sample's summary with the rates filled in.
func Rates(p Pair) stats.Summary {
	out := p.New.Summary
	var old stats.Summary
	if p.Old != nil {
		old = p.Old.Summary
	}
	out.Node.CPU = withRate(out.Node.CPU, old.Node.CPU, out.Node.StartTime)
	before := podsByUID(old.Pods)
	pods := make([]stats.PodStats, len(out.Pods))
	for i, pod := range out.Pods {
		was := before[pod.PodRef.UID]
		pod.CPU = withRate(pod.CPU, was.CPU, pod.StartTime)
		containers := make([]stats.ContainerStats, len(pod.Containers))
		for j, c := range pod.Containers {
			c.CPU = withRate(c.CPU, earlier(&was, &c), c.StartTime)
			containers[j] = c
		}
		pod.Containers = containers
		pods[i] = pod
	}
	out.Pods = pods
	return out
}

func withRate(next, old *stats.CPUStats, began metav1.Time) *stats.CPUStats {
	r, ok := rateOf(next, old, began)
	if !ok {
		return next
	}
	out := *next
	out.UsageNanoCores = &r.cores
	return &out
}

// earlier returns the reading of the same run of a container in an earlier sample of its pod, or nil.
func earlier(pod *stats.PodStats, c *stats.ContainerStats) *stats.CPUStats {
	for i := range pod.Containers {
		if o := &pod.Containers[i]; o.Name == c.Name && o.StartTime.Equal(&c.StartTime) {
			return o.CPU
		}
	}
	return nil
}

func podsByUID(pods []stats.PodStats) map[string]stats.PodStats {
	out := make(map[string]stats.PodStats, len(pods))
	for _, p := range pods {
		out[p.PodRef.UID] = p
	}
	return out
}
