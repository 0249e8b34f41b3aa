package daemonset

import (
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// fits knows what each DaemonSet asks of nodes, so that a node's change is judged without reading every set. Heartbeats, of which there
// are many, wake none.
type fits struct {
	mu    sync.Mutex
	known map[api.Key]fit
}

func newFits() *fits { return &fits{known: map[api.Key]fit{}} }

// note takes in a change of a DaemonSet.
func (f *fits) note(e client.Event) {
	ds := e.Object.(*appsv1.DaemonSet)
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Type == client.Deleted {
		delete(f.known, api.KeyOf(ds))
		return
	}
	if old, ok := e.Old.(*appsv1.DaemonSet); ok && old.UID == ds.UID && old.Generation == ds.Generation {
		return
	}
	f.known[api.KeyOf(ds)] = fitOf(ds)
}

// nodeKeys returns the sets for which a node becomes another: one that is theirs, or no longer.
func (f *fits) nodeKeys(e client.Event) []api.Key {
	node := e.Object.(*corev1.Node)
	old, _ := e.Old.(*corev1.Node)
	if e.Type == client.Modified && old != nil && apiequality.Semantic.DeepEqual(old.Labels, node.Labels) &&
		apiequality.Semantic.DeepEqual(old.Spec.Taints, node.Spec.Taints) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []api.Key
	for key, fit := range f.known {
		run, stay := fit.judge(node)
		if e.Type == client.Modified && old != nil {
			ran, stayed := fit.judge(old)
			if run == ran && stay == stayed {
				continue
			}
		} else if e.Type == client.Added && !run {
			continue
		}
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b api.Key) int { return strings.Compare(a.String(), b.String()) })
	return keys
}
