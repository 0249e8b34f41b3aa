package scheduler

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// source is one watched resource.
type source struct {
	resource *api.Resource
	set      func(api.Object)
	remove   func(api.Key)
	keys     func() []api.Key // of all objects taken in
	synced   bool
}

// fed is a batch of events of one source.
type fed struct {
	from  *source
	batch client.Batch
}

func (s *Scheduler) watched() []*source {
	return append(append(s.deviceSources(), s.volumeSources()...), []*source{
		{resource: api.Nodes, set: s.setNode, remove: s.removeNode, keys: s.state.NodeKeys},
		{resource: api.Namespaces, set: s.setNamespace, keys: s.state.NamespaceKeys,
			remove: func(key api.Key) { s.state.RemoveNamespace(key.Name) }},
		{resource: api.PodDisruptionBudgets, remove: s.state.RemoveBudget, keys: s.state.BudgetKeys,
			set: func(o api.Object) { s.state.SetBudget(o.(*policyv1.PodDisruptionBudget)) }},
		{resource: api.Pods, set: s.setPod, remove: s.removePod, keys: s.podKeys},
	}...)
}

// watch feeds the loop with one source's events.
func (s *Scheduler) watch(ctx context.Context, src *source) error {
	return client.FollowOnce(ctx, s.client, src.resource, client.ListOptions{}, func(b client.Batch) {
		b.Events = slices.Clone(b.Events) // they are ours only until we return
		select {
		case s.feed <- fed{src, b}:
		case <-ctx.Done():
		}
	})
}

// apply takes events in. After a full batch, what was known before and is not in it is gone.
func (s *Scheduler) apply(in fed) {
	src := in.from
	before := map[api.Key]bool{}
	if in.batch.Full {
		for _, key := range src.keys() {
			before[key] = true
		}
	}
	for _, e := range in.batch.Events {
		if e.Type == client.Deleted {
			src.remove(api.KeyOf(e.Object))
			continue
		}
		delete(before, api.KeyOf(e.Object))
		src.set(e.Object)
	}
	if !in.batch.Full {
		return
	}
	for key := range before {
		src.remove(key)
	}
	if src.synced = true; s.synced() {
		s.restoreNominations()
	}
}

// synced reports whether the state is known in full; nothing is placed before.
func (s *Scheduler) synced() bool {
	for _, src := range s.sources {
		if !src.synced {
			return false
		}
	}
	return true
}

func (s *Scheduler) setNode(o api.Object) {
	if s.state.SetNode(o.(*corev1.Node)) {
		s.helps |= placement.NodeChanged
	}
}

func (s *Scheduler) removeNode(key api.Key) {
	s.state.RemoveNode(key.Name)
	s.helps |= placement.NodeGone
	for _, p := range s.queue.aside {
		if p.rejection.Nominated == key.Name || p.rejection.Waiting {
			s.queue.touch(p) // its room is gone: look elsewhere
		}
	}
}

func (s *Scheduler) setNamespace(o api.Object) {
	s.state.SetNamespace(o.(*corev1.Namespace))
	s.helps |= placement.NamespaceChanged
}

// setPod sorts a pod: it holds its node's resources, waits for a node, or does not matter (any more).
func (s *Scheduler) setPod(o api.Object) {
	pod, key := o.(*corev1.Pod), api.KeyOf(o)
	delete(s.gated, key)
	switch {
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		s.removePod(key)
	case pod.Spec.NodeName != "":
		s.queue.remove(key)
		changed, freed := s.state.SetPod(pod)
		if changed {
			s.helps |= placement.PodPlaced
		}
		if freed {
			s.helps |= placement.PodGone
		}
	case pod.DeletionTimestamp != nil || pod.Spec.SchedulerName != s.name:
		s.forget(key)
	case len(pod.Spec.SchedulingGates) > 0:
		s.forget(key)
		s.gated[key] = true
	default:
		s.pend(pod)
	}
}

// removePod forgets a pod that ended or went away.
func (s *Scheduler) removePod(key api.Key) {
	delete(s.gated, key)
	if s.state.RemovePod(key) {
		s.helps |= placement.PodGone
	}
	s.forget(key)
}

// forget takes a pod out of the queue.
func (s *Scheduler) forget(key api.Key) {
	p := s.queue.pods[key]
	if p == nil {
		return
	}
	s.queue.remove(key)
	if s.state.Unnominate(p.pod.UID) {
		s.helps |= placement.RoomReturned
	}
}

func (s *Scheduler) podKeys() []api.Key {
	keys := s.state.PodKeys()
	for key := range s.queue.pods {
		keys = append(keys, key)
	}
	for key := range s.gated {
		keys = append(keys, key)
	}
	return keys
}

// pend enqueues a pod, or takes its changes in.
func (s *Scheduler) pend(pod *corev1.Pod) {
	key := api.KeyOf(pod)
	p := s.queue.pods[key]
	if p != nil && p.pod.UID != pod.UID { // one of the same name came after it
		s.forget(key)
		p = nil
	}
	if p == nil {
		if s.state.Assumed(key, pod.UID) {
			return // bound already; this is how it was before
		}
		s.queue.add(pod).entered = time.Now()
		if s.synced() {
			s.restoreNomination(pod)
		}
		return
	}
	old := p.pod
	p.pod = pod
	// The claims that were made for it stand in its status.
	claims := equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses)
	if !claims || !maps.Equal(old.Labels, pod.Labels) || !equality.Semantic.DeepEqual(&old.Spec, &pod.Spec) {
		s.queue.touch(p)
	}
}

// restoreNominations keeps room again for pods that preempted others before a restart.
func (s *Scheduler) restoreNominations() {
	for _, p := range s.queue.pods {
		s.restoreNomination(p.pod)
	}
}

func (s *Scheduler) restoreNomination(pod *corev1.Pod) {
	if node := pod.Status.NominatedNodeName; node != "" {
		s.state.Nominate(pod, node)
	}
}
