package placement

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// TestVictimsAreEnoughAndNeeded holds preemptions against the reference: victims have a lower priority, without them the pod fits
// its nominated node, and with any one of them back it does not.
func TestVictimsAreEnoughAndNeeded(t *testing.T) {
	preemptions := 0
	rapid.Check(t, func(t *rapid.T) {
		st := New(Options{})
		ref := &reference{nodes: map[string]*corev1.Node{}, namespaces: map[string]labels.Set{}}
		for range rapid.IntRange(1, 4).Draw(t, "nodes") {
			n := drawNode(t)
			st.SetNode(n)
			ref.nodes[n.Name] = n
		}
		for i := range rapid.IntRange(5, 40).Draw(t, "pods") {
			pod := drawPod(t)
			pod.Name, pod.UID = fmt.Sprintf("p%d", i), types.UID(fmt.Sprintf("u%d", i))
			priority := int32(rapid.IntRange(0, 3).Draw(t, "priority"))
			pod.Spec.Priority = &priority
			d := st.Place([]*corev1.Pod{pod})[0]
			if d.Node != "" {
				bound := pod.DeepCopy()
				bound.Spec.NodeName = d.Node
				ref.placed = append(ref.placed, bound)
				continue
			}
			r := d.Rejection
			if len(r.Victims) == 0 {
				continue
			}
			preemptions++
			checkVictims(t, ref, pod, r)
			for _, v := range r.Victims {
				st.RemovePod(keyOf(v))
				ref.placed = slices.DeleteFunc(ref.placed, func(p *corev1.Pod) bool { return p.UID == v.UID })
			}
			if !st.Feasible(pod) {
				t.Fatalf("%s is not feasible though its victims are gone", pod.Name)
			}
			if again := st.Place([]*corev1.Pod{pod})[0]; again.Node != r.Nominated {
				t.Fatalf("%s went to %q and not to %s, where room was made", pod.Name, again.Node, r.Nominated)
			}
			bound := pod.DeepCopy()
			bound.Spec.NodeName = r.Nominated
			ref.placed = append(ref.placed, bound)
		}
	})
	if preemptions == 0 {
		t.Error("the test never saw a preemption")
	}
}

func checkVictims(t *rapid.T, ref *reference, pod *corev1.Pod, r *Rejection) {
	gone := map[types.UID]bool{}
	for _, v := range r.Victims {
		gone[v.UID] = true
		if podPriority(v) >= podPriority(pod) {
			t.Fatalf("victim %s has priority %d, the pod %d", v.Name, podPriority(v), podPriority(pod))
		}
	}
	without := func(back types.UID) []string {
		rest := *ref
		rest.placed = nil
		for _, p := range ref.placed {
			if !gone[p.UID] || p.UID == back {
				rest.placed = append(rest.placed, p)
			}
		}
		return rest.filter(pod, ref.nodes[r.Nominated])
	}
	if why := without(""); len(why) > 0 {
		t.Fatalf("without its victims %s still has %v", r.Nominated, why)
	}
	for _, v := range r.Victims {
		if len(without(v.UID)) == 0 {
			t.Fatalf("%s would fit with victim %s in place", pod.Name, v.Name)
		}
	}
}
