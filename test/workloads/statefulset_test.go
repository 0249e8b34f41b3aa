package workloads

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubernetes/pkg/controller/history"
	upstream "k8s.io/kubernetes/pkg/controller/statefulset"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/statefulset"
)

var histories = flag.Int("histories", 100, "how many random histories")

// cluster is where a StatefulSet and its pods are, on either side.
type cluster interface {
	set() *appsv1.StatefulSet
	change(func(*appsv1.StatefulSet))
	pods() []*corev1.Pod
	// status changes the status of a pod; end removes one.
	status(name string, change func(*corev1.Pod))
	end(name string)
	// begin marks a pod as being deleted.
	begin(name string)
	// settle lets the controller work until it changes nothing any more.
	settle()
}

// kubernetes is Kubernetes' controller over lists in memory.
type kubernetes struct {
	t       *testing.T
	control upstream.StatefulSetControlInterface
	stored  *appsv1.StatefulSet

	mu     sync.Mutex // pods of a parallel set are made and deleted concurrently
	all    map[string]*corev1.Pod
	next   int
	writes int
}

func newKubernetes(t *testing.T, set *appsv1.StatefulSet) *kubernetes {
	k := &kubernetes{t: t, stored: set.DeepCopy(), all: map[string]*corev1.Pod{}}
	revisions := informers.NewSharedInformerFactory(fake.NewClientset(), 0).Apps().V1().ControllerRevisions()
	k.control = upstream.NewDefaultStatefulSetControl(upstream.NewStatefulPodControlFromManager(k, &record.FakeRecorder{}), k, history.NewFakeHistory(revisions))
	return k
}

// What the controller writes with.

func (k *kubernetes) CreatePod(_ context.Context, p *corev1.Pod, _ *appsv1.StatefulSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all[p.Name] != nil {
		return apierrors.NewAlreadyExists(corev1.Resource("pods"), p.Name)
	}
	p = p.DeepCopy()
	k.next++
	p.UID, p.Status.Phase = types.UID(fmt.Sprint(k.next)), corev1.PodPending
	k.all[p.Name] = p
	k.writes++
	return nil
}
func (k *kubernetes) GetPod(_, name string) (*corev1.Pod, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all[name], nil
}
func (k *kubernetes) UpdatePod(p *corev1.Pod, _ *appsv1.StatefulSet) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all[p.Name] = p
	k.writes++
	return nil
}
func (k *kubernetes) DeletePod(p *corev1.Pod) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.writes++
	if q := k.all[p.Name]; q != nil && (q.Status.Phase == corev1.PodFailed || q.Status.Phase == corev1.PodSucceeded) {
		delete(k.all, p.Name) // as the API server does: there is nothing to stop
		return nil
	}
	k.begin(p.Name)
	return nil
}
func (k *kubernetes) CreateClaim(*corev1.PersistentVolumeClaim, *appsv1.StatefulSet) error {
	return nil
}
func (k *kubernetes) GetClaim(_, name string) (*corev1.PersistentVolumeClaim, error) {
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}
func (k *kubernetes) UpdateClaim(*corev1.PersistentVolumeClaim, *appsv1.StatefulSet) error {
	return nil
}
func (k *kubernetes) UpdateStatefulSetStatus(_ context.Context, _ *appsv1.StatefulSet, status *appsv1.StatefulSetStatus) error {
	k.stored.Status = *status.DeepCopy()
	k.writes++
	return nil
}

func (k *kubernetes) set() *appsv1.StatefulSet { return k.stored }
func (k *kubernetes) change(f func(*appsv1.StatefulSet)) {
	f(k.stored)
	k.stored.Generation++
}
func (k *kubernetes) pods() []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range k.all {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return out
}
func (k *kubernetes) status(name string, change func(*corev1.Pod)) {
	p := k.all[name].DeepCopy()
	change(p)
	k.all[name] = p
}
func (k *kubernetes) begin(name string) {
	if p := k.all[name]; p != nil && p.DeletionTimestamp == nil {
		p = p.DeepCopy()
		p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		k.all[name] = p
	}
}
func (k *kubernetes) end(name string) { delete(k.all, name) }
func (k *kubernetes) settle() {
	for round := 0; ; round++ {
		k.writes = 0
		if _, err := k.control.UpdateStatefulSet(k.t.Context(), k.stored, k.pods(), time.Now()); err != nil {
			k.t.Fatal(err)
		}
		if k.writes == 0 {
			return
		}
		if round > 200 {
			k.t.Fatal("Kubernetes' controller does not settle")
		}
	}
}

// knarr is Knarr's over its own front door.
type knarr struct {
	t *testing.T
	c client.Client
	r interface {
		Reconcile(context.Context, api.Key) (time.Duration, error)
	}
	key api.Key
}

func (k *knarr) set() *appsv1.StatefulSet {
	s, err := client.Get[*appsv1.StatefulSet](k.t.Context(), k.c, k.key)
	if err != nil {
		k.t.Fatal(err)
	}
	return s
}
func (k *knarr) change(f func(*appsv1.StatefulSet)) {
	if _, err := client.Mutate(k.t.Context(), k.c, k.key, "", func(s *appsv1.StatefulSet) bool { f(s); return true }); err != nil {
		k.t.Fatal(err)
	}
}
func (k *knarr) pods() []*corev1.Pod {
	pods, err := client.List[*corev1.Pod](k.t.Context(), k.c, client.ListOptions{Namespace: k.key.Namespace})
	if err != nil {
		k.t.Fatal(err)
	}
	return pods
}
func (k *knarr) status(name string, change func(*corev1.Pod)) {
	if _, err := client.Mutate(k.t.Context(), k.c, api.Key{Namespace: k.key.Namespace, Name: name}, "status", func(p *corev1.Pod) bool { change(p); return true }); err != nil {
		k.t.Fatal(err)
	}
}
func (k *knarr) remove(name string, grace *int64) {
	err := client.Delete[*corev1.Pod](k.t.Context(), k.c, api.Key{Namespace: k.key.Namespace, Name: name}, metav1.DeleteOptions{GracePeriodSeconds: grace})
	if err != nil && !apierrors.IsNotFound(err) {
		k.t.Fatal(err)
	}
}
func (k *knarr) begin(name string) { k.remove(name, nil) }
func (k *knarr) end(name string)   { k.remove(name, new(int64)) }
func (k *knarr) settle() {
	for last, round := "", 0; ; round++ {
		after, err := k.r.Reconcile(k.t.Context(), k.key)
		if err != nil {
			k.t.Fatal(err)
		}
		// Knarr replaces pods that fail again and again with back-off, Kubernetes at once.
		if slices.ContainsFunc(k.pods(), func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed && p.DeletionTimestamp == nil }) {
			time.Sleep(after) // virtual
		}
		for _, p := range k.pods() { // so that a node has them to end
			if p.Spec.NodeName == "" {
				k.c.BindMany(k.t.Context(), []client.Binding{{Pod: api.KeyOf(p), Node: "n"}})
			}
		}
		now := show(k) + k.set().ResourceVersion
		if now == last {
			return
		}
		if last = now; round > 200 {
			k.t.Fatal("Knarr's controller does not settle")
		}
	}
}

// show writes what there is: each pod with its image, phase and whether it is ready and ends; and the status, with images in place of
// the names of revisions.
func show(c cluster) string {
	var b strings.Builder
	images := map[string]string{}
	for _, p := range c.pods() {
		image := p.Spec.Containers[0].Image
		images[p.Labels[appsv1.StatefulSetRevisionLabel]] = image
		fmt.Fprintf(&b, "%s=%s,%s", p.Name, image, p.Status.Phase)
		for _, cond := range p.Status.Conditions {
			if cond.Type == corev1.PodReady {
				fmt.Fprintf(&b, ",ready=%s", cond.Status)
			}
		}
		if p.DeletionTimestamp != nil {
			b.WriteString(",ends")
		}
		b.WriteString(" ")
	}
	s := c.set().Status
	fmt.Fprintf(&b, "| %d replicas, %d ready, %d available, %d current, %d updated, done %v", s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas,
		s.CurrentRevision == s.UpdateRevision)
	return b.String()
}

// ready sets the Ready condition of a pod whose containers run. A pod that has never been ready is reported as such from its start.
func ready(p *corev1.Pod, status corev1.ConditionStatus) {
	at := metav1.NewTime(time.Now())
	if p.Status.Phase = corev1.PodRunning; p.Status.StartTime == nil {
		p.Status.StartTime = &at
	}
	p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: status, LastTransitionTime: at})
}

// event is something that happens on both sides.
type event struct {
	name string
	do   func(c cluster)
}

func drawEvent(r *rand.Rand, there []*corev1.Pod) event {
	if len(there) > 0 && r.IntN(4) > 0 {
		p := there[r.IntN(len(there))]
		name := p.Name
		if p.DeletionTimestamp != nil {
			return event{name + " is gone", func(c cluster) { c.end(name) }}
		}
		if p.Status.Phase == corev1.PodFailed {
			return event{"nothing", func(cluster) {}}
		}
		switch r.IntN(9) {
		case 0:
			return event{name + " fails", func(c cluster) {
				c.status(name, func(p *corev1.Pod) { ready(p, corev1.ConditionFalse); p.Status.Phase = corev1.PodFailed })
			}}
		case 1:
			return event{name + " is deleted", func(c cluster) { c.begin(name) }}
		case 2, 3:
			return event{name + " is not ready", func(c cluster) { c.status(name, func(p *corev1.Pod) { ready(p, corev1.ConditionFalse) }) }}
		default:
			return event{name + " is ready", func(c cluster) { c.status(name, func(p *corev1.Pod) { ready(p, corev1.ConditionTrue) }) }}
		}
	}
	switch n := int32(r.IntN(5)); r.IntN(4) {
	case 0, 1:
		image := fmt.Sprint("v", 1+r.IntN(3))
		return event{"image " + image, func(c cluster) {
			c.change(func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = image })
		}}
	case 2:
		return event{fmt.Sprint("scale to ", n), func(c cluster) { c.change(func(s *appsv1.StatefulSet) { s.Spec.Replicas = &n }) }}
	default:
		return event{fmt.Sprint("partition ", n), func(c cluster) {
			c.change(func(s *appsv1.StatefulSet) {
				if s.Spec.UpdateStrategy.RollingUpdate != nil {
					s.Spec.UpdateStrategy.RollingUpdate.Partition = &n
				}
			})
		}}
	}
}

func drawSet(r *rand.Rand) *appsv1.StatefulSet {
	labels := map[string]string{"app": "db"}
	n, most := int32(r.IntN(5)), r.IntN(3)
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: labels}, MinReadySeconds: int32(pick(r, 0, 0, 5)),
		PodManagementPolicy: pick(r, appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement),
		Template:            corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}}}
	if r.IntN(5) == 0 {
		s.Spec.UpdateStrategy.Type = appsv1.OnDeleteStatefulSetStrategyType
	} else if most > 0 {
		s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: maxUnavailable(most)}}
	}
	if r.IntN(3) == 0 {
		s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(r.IntN(4))}
	}
	return s
}

func maxUnavailable(n int) *intstr.IntOrString {
	v := intstr.FromInt(n)
	return &v
}

// departs reports whether Knarr does on purpose what Kubernetes does not: with ordered management it replaces a pod of an old revision that is not
// ready, for which Kubernetes waits (kubernetes#67250).
func departs(theirs, ours cluster) bool {
	set := ours.set()
	if set.Spec.PodManagementPolicy != appsv1.OrderedReadyPodManagement || set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return false
	}
	had := map[string]*corev1.Pod{}
	for _, p := range theirs.pods() {
		had[p.Name] = p
	}
	for _, p := range ours.pods() {
		q := had[p.Name]
		isReady := q != nil && slices.ContainsFunc(q.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
		if q != nil && q.DeletionTimestamp == nil && p.DeletionTimestamp != nil && !isReady && q.Spec.Containers[0].Image != set.Spec.Template.Spec.Containers[0].Image {
			return true
		}
	}
	return false
}

// early reports whether Kubernetes declares an update complete while there are pods beyond the replicas: at the moment at which it makes a pod, it
// counts one of those in its place. Knarr counts what is there.
func early(theirs, ours cluster) bool {
	set := theirs.set()
	start := int32(0)
	if set.Spec.Ordinals != nil {
		start = set.Spec.Ordinals.Start
	}
	beyond := slices.ContainsFunc(theirs.pods(), func(p *corev1.Pod) bool {
		var n int32
		fmt.Sscanf(p.Name, "db-%d", &n)
		return n < start || n >= start+*set.Spec.Replicas
	})
	done := func(c cluster) bool { return c.set().Status.CurrentRevision == c.set().Status.UpdateRevision }
	return beyond && done(theirs) && !done(ours)
}

// TestStatefulSetsLiveAsInKubernetes: after each event, both controllers have left the same pods and the same status.
func TestStatefulSetsLiveAsInKubernetes(t *testing.T) {
	events, departures := 0, 0
	for seed := range uint64(*histories) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			c := clienttest.New(t)
			made := clienttest.Create(t, c, drawSet(r))
			ours := &knarr{t: t, c: c, r: statefulset.New(c).Reconciler, key: api.KeyOf(made)}
			theirs := newKubernetes(t, made)
			log := []string{fmt.Sprintf("%s, %v, start %v, at least %d s", made.Spec.PodManagementPolicy, made.Spec.UpdateStrategy, made.Spec.Ordinals, made.Spec.MinReadySeconds)}
			for range 60 {
				ours.settle()
				theirs.settle()
				want, got := show(theirs), show(ours)
				log = append(log, "  "+got)
				if want != got {
					if departs(theirs, ours) || early(theirs, ours) {
						departures++
						return
					}
					t.Errorf("seed %d: Kubernetes has\n  %s\nafter\n%s", seed, want, strings.Join(log, "\n"))
					return
				}
				e := drawEvent(r, theirs.pods())
				log = append(log, e.name)
				e.do(theirs)
				e.do(ours)
				events++
				time.Sleep(pick(r, time.Second, 10*time.Minute)) // virtual
			}
		})
	}
	t.Logf("%d events in %d histories, %d of which ended with a departure", events, *histories, departures)
	if departures > *histories/2 || events < *histories*10 {
		t.Errorf("%d departures after %d events: what is drawn tests little", departures, events)
	}
}
