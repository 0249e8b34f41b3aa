package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

var (
	lives     = flag.Uint64("lives", 20, "lives of all kinds of workloads that TestLivesEndAsDeclared draws")
	lifeTold  = flag.Bool("tell", false, "print what is done in these lives at once, for one that does not end")
	lifeSteps = flag.Int("steps", 0, "how many steps each of these lives has; 0: the first one 300, and the others 40")
)

func (l *life) length(seed uint64) int {
	switch {
	case *lifeSteps > 0:
		return *lifeSteps
	case seed == 0:
		return 300
	}
	return 40
}

// sightings are what became of the pods of Jobs, by the UID of the Job and that of the pod.
type sightings struct {
	mu     sync.Mutex
	pods   map[types.UID]map[types.UID]sighting
	counts map[types.UID][2]int32 // succeeded and failed, as the Job said last
	// changed are pods that ended in two ways.
	changed []string
}

type sighting struct {
	phase   corev1.PodPhase
	deleted bool // before it ended: by what becomes of it afterwards, or as a failure at once, is for the Job to say
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// watchEnds follows the pods of Jobs.
func (l *life) watchEnds() *sightings {
	s := &sightings{pods: map[types.UID]map[types.UID]sighting{}, counts: map[types.UID][2]int32{}}
	l.wg.Go(func() {
		client.Follow(l.ctx, slog.New(slog.DiscardHandler), l.Client, api.Pods, client.ListOptions{Namespace: "default"}, func(b client.Batch) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, e := range b.Events {
				s.see(e.Object.(*corev1.Pod))
			}
		})
	})
	return s
}

func (s *sightings) see(p *corev1.Pod) {
	owner := metav1.GetControllerOf(p)
	if owner == nil || owner.Kind != "Job" {
		return
	}
	if s.pods[owner.UID] == nil {
		s.pods[owner.UID] = map[types.UID]sighting{}
	}
	before := s.pods[owner.UID][p.UID]
	now := sighting{phase: before.phase, deleted: before.deleted || p.DeletionTimestamp != nil && before.phase == "" && !ended(p)}
	if ended(p) {
		now.phase = p.Status.Phase
		if before.phase != "" && before.phase != now.phase {
			s.changed = append(s.changed, fmt.Sprintf("pod %s was %s and is %s", p.Name, before.phase, now.phase))
		}
	}
	s.pods[owner.UID][p.UID] = now
}

// ended counts the pods of a Job that succeeded, those that failed, and those that were deleted first, which may count as either.
func (s *sightings) ended(job types.UID) (succeeded, failed, either int32) {
	for _, pod := range s.pods[job] {
		switch {
		case pod.phase == corev1.PodFailed:
			failed++
		case pod.deleted:
			either++
		case pod.phase == corev1.PodSucceeded:
			succeeded++
		}
	}
	return succeeded, failed, either
}

// check finds what must not be, not even for a moment.
func (l *life) check() {
	l.t.Helper()
	for name, uids := range l.running() {
		if strings.HasPrefix(name, "state-") && len(uids) > 1 {
			l.t.Fatalf("%d pods named %s run", len(uids), name)
		}
	}
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	if len(l.seen.changed) > 0 {
		l.t.Fatal(l.seen.changed)
	}
	for _, j := range all[*batchv1.Job](l) {
		l.checkCounts(j)
	}
}

func (l *life) checkCounts(j *batchv1.Job) {
	l.t.Helper()
	succeeded, failed, either := l.seen.ended(j.UID)
	s, before := j.Status, l.seen.counts[j.UID]
	if s.Succeeded > succeeded+either || s.Failed > failed+either || s.Succeeded+s.Failed > succeeded+failed+either {
		l.t.Fatalf("Job %s counts %d succeeded and %d failed; %d succeeded, %d failed and %d were deleted", j.Name, s.Succeeded, s.Failed, succeeded, failed, either)
	}
	if s.Succeeded < before[0] || s.Failed < before[1] {
		l.t.Fatalf("Job %s counted %v succeeded and failed, and now %d and %d", j.Name, before, s.Succeeded, s.Failed)
	}
	l.seen.counts[j.UID] = [2]int32{s.Succeeded, s.Failed}
	if n := *j.Spec.Completions; s.Succeeded > n {
		l.t.Fatalf("Job %s of %d completions counts %d", j.Name, n, s.Succeeded)
	}
}

// state is everything that a life made, as it is.
type state struct {
	owners map[types.UID]string // KIND/NAME of all that owns something
	owned  map[types.UID][]*corev1.Pod
	pods   []*corev1.Pod
	wrong  []string
}

func (s *state) errorf(format string, args ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// own notes an object that may own others. It must not be about to go: nobody deletes any longer.
func (s *state) own(kind string, o api.Object) {
	s.owners[o.GetUID()] = kind + "/" + o.GetName()
	if o.GetDeletionTimestamp() != nil {
		s.errorf("%s %s is still being deleted, with the finalizers %v", kind, o.GetName(), o.GetFinalizers())
	}
}

func all[T api.Object](l *life) []T {
	l.t.Helper()
	out, err := client.List[T](l.ctx, l.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// declared reports whether there is what is declared and nothing else.
func (l *life) declared() (bool, any) {
	s := &state{owners: map[types.UID]string{}, owned: map[types.UID][]*corev1.Pod{}, pods: all[*corev1.Pod](l)}
	for _, p := range s.pods {
		if owner := metav1.GetControllerOf(p); owner != nil {
			s.owned[owner.UID] = append(s.owned[owner.UID], p)
		}
	}
	l.replicated(s)
	l.sets(s)
	l.jobs(s)
	var owned []api.Object
	for _, res := range []*api.Resource{api.Pods, api.ReplicaSets, api.Jobs, api.ControllerRevisions} {
		of, err := l.List(l.ctx, res, client.ListOptions{Namespace: "default"})
		if err != nil {
			return false, err
		}
		owned = append(owned, of...)
	}
	for _, o := range owned {
		refs := o.GetOwnerReferences()
		pod, _ := o.(*corev1.Pod)
		standsAlone := slices.ContainsFunc(subjects, func(s subject) bool { return s.name == o.GetName() }) || pod != nil && ended(pod) // nobody adopts those
		if len(refs) == 0 && !standsAlone || slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return s.owners[r.UID] == "" }) {
			s.errorf("%T %s is an orphan: %v", o, o.GetName(), refs)
		}
	}
	l.bounds(s)
	return len(s.wrong) == 0, strings.Join(s.wrong, "; ")
}

// live checks that an owner has n pods that are all ready and of an image. Failed pods of ReplicaSets stay until there are many.
func (s *state) live(uid types.UID, what string, n int32, image string, failedStay bool) {
	have := int32(0)
	for _, p := range s.owned[uid] {
		if failedStay && ended(p) && p.DeletionTimestamp == nil {
			continue
		}
		have++
		if !podReady(p) || image != "" && p.Spec.Containers[0].Image != image {
			s.errorf("pod %s of %s is not ready, or not of %s: %s, %s", p.Name, what, image, p.Status.Phase, p.Spec.Containers[0].Image)
		}
	}
	if have != n {
		s.errorf("%s has %d pods, want %d", what, have, n)
	}
}

// replicated checks Deployments, ReplicaSets and ReplicationControllers.
func (l *life) replicated(s *state) {
	replicas := map[types.UID]int32{} // asked for by the ReplicaSets of a Deployment
	old := map[types.UID]int32{}
	for _, r := range all[*appsv1.ReplicaSet](l) {
		s.own("ReplicaSet", r)
		s.live(r.UID, "ReplicaSet "+r.Name, *r.Spec.Replicas, "", true)
		if r.Status.Replicas != *r.Spec.Replicas || r.Status.AvailableReplicas != *r.Spec.Replicas || r.Status.ObservedGeneration != r.Generation {
			s.errorf("ReplicaSet %s of %d: %+v", r.Name, *r.Spec.Replicas, r.Status)
		}
		if owner := metav1.GetControllerOf(r); owner != nil {
			replicas[owner.UID] += *r.Spec.Replicas
			if *r.Spec.Replicas == 0 {
				old[owner.UID]++
			}
		}
	}
	for _, d := range all[*appsv1.Deployment](l) {
		s.own("Deployment", d)
		n := *d.Spec.Replicas
		if replicas[d.UID] != n || old[d.UID] > *d.Spec.RevisionHistoryLimit+1 {
			s.errorf("the ReplicaSets of %s ask for %d, want %d; %d ask for none", d.Name, replicas[d.UID], n, old[d.UID])
		}
		if t := d.Status; t.Replicas != n || t.UpdatedReplicas != n || t.ReadyReplicas != n || t.AvailableReplicas != n || t.UnavailableReplicas != 0 || t.ObservedGeneration != d.Generation {
			s.errorf("Deployment %s of %d: %+v", d.Name, n, t)
		}
	}
	for _, r := range all[*corev1.ReplicationController](l) {
		s.own("ReplicationController", r)
		s.live(r.UID, "ReplicationController "+r.Name, *r.Spec.Replicas, "", true)
		if r.Status.Replicas != *r.Spec.Replicas || r.Status.AvailableReplicas != *r.Spec.Replicas || r.Status.ObservedGeneration != r.Generation {
			s.errorf("ReplicationController %s of %d: %+v", r.Name, *r.Spec.Replicas, r.Status)
		}
	}
}

// sets checks StatefulSets and DaemonSets.
func (l *life) sets(s *state) {
	for _, o := range all[*appsv1.StatefulSet](l) {
		s.own("StatefulSet", o)
		n, start := *o.Spec.Replicas, int32(0)
		if o.Spec.Ordinals != nil {
			start = o.Spec.Ordinals.Start
		}
		s.live(o.UID, "StatefulSet "+o.Name, n, o.Spec.Template.Spec.Containers[0].Image, false)
		for i := start; i < start+n; i++ {
			name := fmt.Sprintf("%s-%d", o.Name, i)
			if !slices.ContainsFunc(s.owned[o.UID], func(p *corev1.Pod) bool { return p.Name == name }) {
				s.errorf("pod %s is not there", name)
			}
		}
		if t := o.Status; t.Replicas != n || t.ReadyReplicas != n || t.UpdatedReplicas != n || t.CurrentRevision != t.UpdateRevision || t.ObservedGeneration != o.Generation {
			s.errorf("StatefulSet %s of %d: %+v", o.Name, n, t)
		}
	}
	for _, o := range all[*appsv1.DaemonSet](l) {
		s.own("DaemonSet", o)
		s.live(o.UID, "DaemonSet "+o.Name, lifeMachines, o.Spec.Template.Spec.Containers[0].Image, false)
		nodes := map[string]bool{}
		for _, p := range s.owned[o.UID] {
			nodes[p.Spec.NodeName] = true
		}
		if t := o.Status; len(nodes) != lifeMachines || t.DesiredNumberScheduled != lifeMachines || t.NumberAvailable != lifeMachines || t.UpdatedNumberScheduled != lifeMachines ||
			t.NumberMisscheduled != 0 || t.ObservedGeneration != o.Generation {
			s.errorf("DaemonSet %s on %v: %+v", o.Name, nodes, t)
		}
	}
}

// jobs checks that all Jobs have ended and counted what ended, and that CronJobs keep what they are to keep.
func (l *life) jobs(s *state) {
	kept := map[types.UID]map[batchv1.JobConditionType]int32{}
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	for _, j := range all[*batchv1.Job](l) {
		s.own("Job", j)
		var end batchv1.JobConditionType
		for _, c := range j.Status.Conditions {
			if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
				end = c.Type
			}
		}
		uncounted := j.Status.UncountedTerminatedPods
		if end == "" || j.Status.Active != 0 || uncounted != nil && len(uncounted.Succeeded)+len(uncounted.Failed) > 0 {
			s.errorf("Job %s has not ended: %+v", j.Name, j.Status)
		}
		l.checkCounts(j)
		if end == batchv1.JobComplete && j.Spec.SuccessPolicy == nil && j.Status.Succeeded != *j.Spec.Completions {
			s.errorf("Job %s of %d completions is complete with %d", j.Name, *j.Spec.Completions, j.Status.Succeeded)
		}
		if owner := metav1.GetControllerOf(j); owner != nil {
			if kept[owner.UID] == nil {
				kept[owner.UID] = map[batchv1.JobConditionType]int32{}
			}
			kept[owner.UID][end]++
		}
	}
	for _, p := range s.pods {
		if len(p.Finalizers) > 0 {
			s.errorf("pod %s has the finalizers %v", p.Name, p.Finalizers)
		}
	}
	for _, c := range all[*batchv1.CronJob](l) {
		s.own("CronJob", c)
		k := kept[c.UID]
		if k[batchv1.JobComplete] > *c.Spec.SuccessfulJobsHistoryLimit || k[batchv1.JobFailed] > *c.Spec.FailedJobsHistoryLimit || len(c.Status.Active) > 0 {
			s.errorf("CronJob %s keeps %v, and %d are active", c.Name, k, len(c.Status.Active))
		}
	}
}

// bounds checks quotas and disruption budgets.
func (l *life) bounds(s *state) {
	count := map[corev1.ResourceName]int64{"count/jobs.batch": int64(len(all[*batchv1.Job](l))), "count/replicasets.apps": int64(len(all[*appsv1.ReplicaSet](l)))}
	for _, p := range s.pods {
		if !ended(p) {
			count[corev1.ResourcePods]++
		}
	}
	for _, q := range all[*corev1.ResourceQuota](l) {
		for what, n := range count {
			if used := q.Status.Used[what]; used.Value() != n {
				s.errorf("the quota says %d %s are there, not %d", used.Value(), what, n)
			}
		}
	}
	for _, b := range all[*policyv1.PodDisruptionBudget](l) {
		healthy := int32(0)
		for _, p := range s.pods {
			if labels.SelectorFromSet(b.Spec.Selector.MatchLabels).Matches(labels.Set(p.Labels)) && podReady(p) {
				healthy++
			}
		}
		if t := b.Status; t.CurrentHealthy != healthy || t.ObservedGeneration != b.Generation || t.DisruptionsAllowed != max(0, t.CurrentHealthy-t.DesiredHealthy) || len(t.DisruptedPods) > 0 {
			s.errorf("PodDisruptionBudget %s with %d healthy pods: %+v", b.Name, healthy, t)
		}
	}
}
