package nodelifecycle

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// excluded is the label of nodes that do not count for the state of their zone.
const excluded = "node.kubernetes.io/exclude-disruption"

// zoneOf names the zone of a node, with its region.
func zoneOf(node *corev1.Node) string {
	region, zone := node.Labels[corev1.LabelTopologyRegion], node.Labels[corev1.LabelTopologyZone]
	if region == "" && zone == "" {
		return ""
	}
	return region + "/" + zone
}

// evictionRate returns how many nodes of zone may begin to evict a second, by how many of them are down. allDown says that
// no node of any zone is ready: it is rather we who are cut off.
func evictionRate(nodes []*corev1.Node, zone string, config Config) (rate float64, allDown bool) {
	up, down := map[string]int{}, map[string]int{}
	anyUp := false
	for _, n := range nodes {
		if _, skip := n.Labels[excluded]; skip {
			continue
		}
		if isReady(n) {
			up[zoneOf(n)]++
			anyUp = true
		} else {
			down[zoneOf(n)]++
		}
	}
	size := up[zone] + down[zone]
	switch {
	case !anyUp && len(down) > 0:
		return 0, true
	case up[zone] == 0:
		return config.EvictionRate, false // all of the zone: others are well, so it is the zone
	case down[zone] > 2 && float64(down[zone])/float64(size) >= config.UnhealthyZoneThreshold:
		if size > config.LargeZoneSize {
			return config.SecondaryEvictionRate, false
		}
		return 0, false
	}
	return config.EvictionRate, false
}

// limiter spaces out the nodes of each zone.
type limiter struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func newLimiter() *limiter { return &limiter{last: map[string]time.Time{}} }

// take takes zone's turn at now, at rate a second, or returns how long to wait for it.
func (l *limiter) take(zone string, rate float64, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, ok := l.last[zone]
	if wait := last.Add(time.Duration(float64(time.Second) / rate)).Sub(now); ok && wait > 0 {
		return wait
	}
	l.last[zone] = now
	return 0
}
