package sim

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/hollow"
)

var setLives = flag.Uint64("sets", 8, "lives of StatefulSets and DaemonSets that TestSetsEndAsDeclared draws")

const setNodes = 4

// sets is a world in which StatefulSets and DaemonSets live a life drawn from a seed.
type sets struct {
	*world
	rng      *rand.Rand
	servers  [2]*rival
	leading  int
	abdicate context.CancelFunc
	silence  map[int]func() // what makes a node that is up fall silent
	log      []string       // what was done, for a failure to show
}

func (s *sets) did(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }

// leader ends the term of the server that leads and begins one of the other.
func (s *sets) leader() {
	if s.abdicate != nil {
		s.abdicate()
	}
	s.leading = 1 - s.leading
	var term context.Context
	term, s.abdicate = context.WithCancel(s.ctx)
	s.servers[s.leading].terms <- term
	s.did("server %d leads", s.leading)
}

// node makes one that is up fall silent, or one that is silent come back, as after a reboot.
func (s *sets) node() {
	i := s.rng.IntN(setNodes)
	if stop := s.silence[i]; stop != nil {
		s.silence[i] = nil
		stop()
		s.did("node %d falls silent", i)
		return
	}
	s.silence[i] = s.nodes(i, 1)
	s.did("node %d comes back", i)
}

func setTemplate(app string) corev1.PodTemplateSpec {
	// A short grace and toleration: minutes of waiting for what is lost would show nothing more.
	grace, wait := int64(2), int64(20)
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "c", Image: "docker.io/library/app:1"}},
		Tolerations: []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &wait}}}}
}

func (s *sets) create(name string) {
	labels := &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	meta := metav1.ObjectMeta{Namespace: "default", Name: name}
	var o api.Object
	if strings.HasPrefix(name, "state") {
		n := int32(s.rng.IntN(5))
		policy := []appsv1.PodManagementPolicyType{appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement}[s.rng.IntN(2)]
		set := &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &n, Selector: labels, Template: setTemplate(name), PodManagementPolicy: policy,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: atMost(1 + s.rng.IntN(2))}}}}
		if s.rng.IntN(2) == 0 {
			set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(s.rng.IntN(3))}
		}
		o = set
	} else {
		surge := s.rng.IntN(2)
		o = &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: labels, Template: setTemplate(name),
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: atMost(surge), MaxUnavailable: atMost(1 - surge)}}}}
	}
	_, err := s.Create(s.ctx, o)
	s.did("create %s: %v", name, err)
}

// edit changes a set, if it is there.
func (s *sets) edit(name string) {
	key := api.Key{Namespace: "default", Name: name}
	image := fmt.Sprintf("docker.io/library/app:%d", 1+s.rng.IntN(3))
	n := int32(s.rng.IntN(5))
	scale := s.rng.IntN(2) == 0
	var err error
	if strings.HasPrefix(name, "state") {
		_, err = client.Mutate(s.ctx, s.Client, key, "", func(o *appsv1.StatefulSet) bool {
			if scale {
				o.Spec.Replicas = &n
			} else {
				o.Spec.Template.Spec.Containers[0].Image = image
			}
			return true
		})
	} else {
		_, err = client.Mutate(s.ctx, s.Client, key, "", func(o *appsv1.DaemonSet) bool { o.Spec.Template.Spec.Containers[0].Image = image; return true })
	}
	s.did("edit %s (scale %v to %d, or image %s): %v", name, scale, n, image, err)
}

func (s *sets) remove(name string) {
	background := metav1.DeletePropagationBackground
	opts, key := metav1.DeleteOptions{PropagationPolicy: &background}, api.Key{Namespace: "default", Name: name}
	err := client.Delete[*appsv1.DaemonSet](s.ctx, s.Client, key, opts)
	if strings.HasPrefix(name, "state") {
		err = client.Delete[*appsv1.StatefulSet](s.ctx, s.Client, key, opts)
	}
	s.did("delete %s: %v", name, err)
}

// evict deletes a pod, or makes it fail as one that its node evicts.
func (s *sets) evict() {
	all, err := client.List[*corev1.Pod](s.ctx, s.Client, client.ListOptions{Namespace: "default"})
	if err != nil || len(all) == 0 {
		return
	}
	p := all[s.rng.IntN(len(all))]
	if s.rng.IntN(2) == 0 {
		err = client.Delete[*corev1.Pod](s.ctx, s.Client, api.KeyOf(p), metav1.DeleteOptions{})
	} else {
		_, err = client.Mutate(s.ctx, s.Client, api.KeyOf(p), "status", func(p *corev1.Pod) bool { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted"; return true })
	}
	s.did("pod %s ends: %v", p.Name, err)
}

// step does one thing, and lets some time pass.
func (s *sets) step() {
	names := []string{"state-a", "state-b", "daemon-a", "daemon-b"}
	name := names[s.rng.IntN(len(names))]
	switch s.rng.IntN(12) {
	case 0, 1, 2:
		s.create(name)
	case 3, 4, 5, 6:
		s.edit(name)
	case 7:
		s.remove(name)
	case 8, 9:
		s.evict()
	case 10:
		s.node()
	case 11:
		s.leader()
	}
	s.pass(time.Duration(s.rng.IntN(4000)) * time.Millisecond)
}

// declared reports whether the pods are those that the sets ask for, all ready, and every status says so.
func (s *sets) declared() (bool, any) {
	want := map[string]string{} // OWNER/MEMBER: image
	stateful, err := client.List[*appsv1.StatefulSet](s.ctx, s.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		return false, err
	}
	for _, o := range stateful {
		start, n := int32(0), *o.Spec.Replicas
		if o.Spec.Ordinals != nil {
			start = o.Spec.Ordinals.Start
		}
		for i := start; i < start+n; i++ {
			want[fmt.Sprintf("%s/%s-%d", o.UID, o.Name, i)] = o.Spec.Template.Spec.Containers[0].Image
		}
		st := o.Status
		if st.Replicas != n || st.ReadyReplicas != n || st.AvailableReplicas != n || st.UpdatedReplicas != n || st.CurrentReplicas != n || st.CurrentRevision != st.UpdateRevision ||
			st.ObservedGeneration != o.Generation {
			return false, fmt.Sprintf("%s of %d: %+v", o.Name, n, st)
		}
	}
	daemons, err := client.List[*appsv1.DaemonSet](s.ctx, s.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		return false, err
	}
	for _, o := range daemons {
		for i := range setNodes {
			want[fmt.Sprintf("%s/%s", o.UID, hollow.Name(i))] = o.Spec.Template.Spec.Containers[0].Image
		}
		st := o.Status
		if st.DesiredNumberScheduled != setNodes || st.NumberAvailable != setNodes || st.UpdatedNumberScheduled != setNodes || st.NumberMisscheduled != 0 || st.ObservedGeneration != o.Generation {
			return false, fmt.Sprintf("%s: %+v", o.Name, st)
		}
	}
	have := map[string]string{}
	pods, err := client.List[*corev1.Pod](s.ctx, s.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		return false, err
	}
	for _, p := range pods {
		owner := metav1.GetControllerOf(p)
		if owner == nil || !podReady(p) {
			return false, fmt.Sprintf("pod %s of %v is not ready: %v", p.Name, owner, p.Status.Phase)
		}
		member := p.Name
		if owner.Kind == "DaemonSet" {
			member = p.Spec.NodeName
		}
		at := string(owner.UID) + "/" + member
		if _, twice := have[at]; twice {
			return false, "two pods at " + at
		}
		have[at] = p.Spec.Containers[0].Image
	}
	return maps.Equal(want, have), fmt.Sprintf("pods %v, want %v", have, want)
}

// TestSetsEndAsDeclared draws a life from a seed: whatever was created, changed, deleted, lost and led by whom, the pods are in the end those that
// are asked for, and no others.
func TestSetsEndAsDeclared(t *testing.T) {
	for seed := range *setLives {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rivals(t, func(w *world, first, second *rival) {
				s := &sets{world: w, rng: rand.New(rand.NewPCG(seed, 0)), servers: [2]*rival{first, second}, silence: map[int]func(){}}
				defer func() {
					if t.Failed() {
						t.Logf("what was done:\n%s", strings.Join(s.log, "\n"))
					}
				}()
				s.leader()
				defer func() { s.abdicate() }()
				for i := range setNodes {
					s.silence[i] = s.nodes(i, 1)
				}
				for range 50 {
					s.step()
				}
				for i := range setNodes {
					if s.silence[i] == nil {
						s.silence[i] = s.nodes(i, 1)
					}
				}
				s.until("the declared state", 30*time.Minute, s.declared)
				s.pass(10 * time.Minute)
				if ok, seen := s.declared(); !ok {
					t.Errorf("ten minutes later: %v", seen)
				}
				revisions, err := client.List[*appsv1.ControllerRevision](w.ctx, w.Client, client.ListOptions{Namespace: "default"})
				if err != nil && !apierrors.IsNotFound(err) {
					t.Fatal(err)
				}
				for _, r := range revisions {
					if metav1.GetControllerOf(r) == nil || slices.ContainsFunc(r.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == "" }) {
						t.Errorf("revision %s is nobody's", r.Name)
					}
				}
			})
		})
	}
}
