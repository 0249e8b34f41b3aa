package daemonset

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// agent is a set called agent as the server stores it, with bounds of its updates, changed by changes.
func agent(surge, unavailable string, changes ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	s, u, ten := intstr.Parse(surge), intstr.Parse(unavailable), int32(10)
	ds := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "agent", UID: "agent", Generation: 1, Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "7"}},
		Spec: appsv1.DaemonSetSpec{Selector: ct.Selector("agent"), Template: ct.Template("agent", "v1"), RevisionHistoryLimit: &ten,
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u}}},
	}
	for _, c := range changes {
		c(ds)
	}
	return ds
}

func onDelete(ds *appsv1.DaemonSet) {
	ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
}

// read takes a cluster as NODE[!EFFECT]=REVISION:STATE,... ...; a node with a name that begins with x is not there. A state is ready, young
// (for five seconds), waiting (not bound yet), starting, failed, succeeded or ending.
func read(ds *appsv1.DaemonSet, text string) observed {
	obs := observed{selector: labels.SelectorFromSet(ds.Spec.Selector.MatchLabels), hash: "v2"}
	for i, word := range strings.Fields(text) {
		name, have, _ := strings.Cut(word, "=")
		name, taint, tainted := strings.Cut(name, "!")
		if !strings.HasPrefix(name, "x") {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
			if tainted {
				n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffect(taint)}}
			}
			obs.nodes = append(obs.nodes, n)
		}
		for j, one := range strings.FieldsFunc(have, func(r rune) bool { return r == ',' }) {
			rev, state, _ := strings.Cut(one, ":")
			p := newPod(ds, rev, name)
			p.Labels[generationLabel] = rev
			p.Name = fmt.Sprintf("%s.%s.%d", name, rev, j)
			p.UID = types.UID(p.Name)
			p.CreationTimestamp = metav1.NewTime(now.Add(time.Duration(i*10+j-1000) * time.Second))
			obs.pods = append(obs.pods, set(p, name, state))
		}
	}
	return obs
}

func set(p *corev1.Pod, node, state string) *corev1.Pod {
	p.Spec.NodeName = node
	p.Status.Phase = corev1.PodRunning
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute))}
	switch state {
	case "young":
		ready.LastTransitionTime = metav1.NewTime(now.Add(-5 * time.Second))
	case "waiting":
		p.Spec.NodeName, p.Status.Phase, ready.Status = "", corev1.PodPending, corev1.ConditionFalse
	case "starting":
		ready.Status = corev1.ConditionFalse
	case "failed":
		p.Status.Phase, ready.Status = corev1.PodFailed, corev1.ConditionFalse
	case "succeeded":
		p.Status.Phase, ready.Status = corev1.PodSucceeded, corev1.ConditionFalse
	case "ending":
		p.DeletionTimestamp = &metav1.Time{Time: now}
	}
	p.Status.Conditions = []corev1.PodCondition{ready}
	return p
}

// show writes what a plan does: +NODE for a pod to be made, -POD for one to be deleted.
func show(act actions) string {
	var out []string
	for _, p := range act.create {
		out = append(out, "+"+workload.TargetNode(p))
	}
	for _, p := range act.delete {
		out = append(out, "-"+p.Name[:strings.LastIndexByte(p.Name, '.')])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	minReady := func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = 10 }
	for _, tc := range []struct {
		name string
		ds   *appsv1.DaemonSet
		have string
		want string
	}{
		{"every node gets one", agent("0", "1"), "a b c=v2:starting", "+a +b"},
		{"but for those with taints", agent("0", "1"), "a!NoSchedule b!NoExecute c!PreferNoSchedule", "+c"},
		{"a new taint lets it stay, or not", agent("0", "1"), "a!NoSchedule=v2:ready b!NoExecute=v2:ready", "-b.v2"},
		{"one too many goes, the younger", agent("0", "1"), "a=v2:ready,v2:ready", "-a.v2"},
		{"what waits for a node that is gone goes", agent("0", "1"), "a=v2:ready x1=v2:waiting x2=v2:ready", "-x1.v2"},
		{"one that ends has no successor yet", agent("0", "1"), "a=v2:ending", ""},
		{"one that has ended goes", agent("0", "1"), "a=v2:failed b=v2:succeeded c=v2:ready", "-a.v2 -b.v2"},

		{"an update takes one at a time", agent("0", "1"), "a=v1:ready b=v1:ready", "-a.v1"},
		{"and waits for its successor", agent("0", "1"), "a=v2:starting b=v1:ready", ""},
		{"until it is available", agent("0", "1", minReady), "a=v2:young b=v1:ready", ""},
		{"and goes on", agent("0", "1"), "a=v2:ready b=v1:ready", "-b.v1"},
		{"half of three is two", agent("0", "50%"), "a=v1:ready b=v1:ready c=v1:ready", "-a.v1 -b.v1"},
		{"those that do not work go at once", agent("0", "1"), "a=v1:ready b=v1:starting c=v1:starting", "-b.v1 -c.v1"},
		{"what is missing comes first", agent("0", "1"), "a b=v1:ready", "+a"},
		{"what ends counts", agent("0", "1"), "a=v1:ending b=v1:ready", ""},
		{"on deletion only", agent("0", "1", onDelete), "a=v1:ready b=v1:starting", ""},
		{"an update without bounds takes one", agent("0", "0"), "a=v1:ready b=v1:ready", "-a.v1"},

		{"a surge makes the new one first", agent("1", "0"), "a=v1:ready b=v1:ready", "+a"},
		{"one at a time", agent("1", "0"), "a=v1:ready,v2:starting b=v1:ready", ""},
		{"and the old one goes", agent("1", "0"), "a=v1:ready,v2:ready b=v1:ready", "-a.v1"},
		{"when the new one is available", agent("1", "0", minReady), "a=v1:ready,v2:young b=v1:ready", ""},
		{"or the old one is not ready", agent("1", "0"), "a=v1:starting,v2:starting b=v1:ready", "-a.v1"},
		{"a third of four is two", agent("30%", "0"), "a=v1:ready b=v1:ready c=v1:ready d=v1:ready", "+a +b"},
		{"where the old one does not work a new one is made at once", agent("1", "0"), "a=v1:ready b=v1:starting c=v1:starting", "+a +b +c"},
		{"while the old one ends", agent("1", "0"), "a=v1:ending", "+a"},
		{"a pod that may stay goes when enough others are available", agent("1", "0"), "a!NoSchedule=v1:ready b=v2:ready", "-a.v1"},
		{"not before", agent("1", "0"), "a!NoSchedule=v1:ready b=v2:starting", ""},
		{"more than two are too many", agent("1", "0"), "a=v1:ready,v1:ready,v2:starting", "-a.v1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := show(plan(tc.ds, read(tc.ds, tc.have), now)); got != tc.want {
				t.Errorf("of %q: %q, want %q", tc.have, got, tc.want)
			}
		})
	}
}

func TestAHoldKeepsAFailedPod(t *testing.T) {
	for _, ds := range []*appsv1.DaemonSet{agent("0", "1"), agent("1", "0")} {
		obs := read(ds, "a=v2:failed b=v2:ready")
		obs.holds = map[types.UID]time.Time{"a.v2.0": now.Add(7 * time.Second)}
		if act := plan(ds, obs, now); show(act) != "" || act.after != 7*time.Second {
			t.Errorf("%q after %v, want nothing for seven seconds", show(act), act.after)
		}
		if act := plan(ds, obs, now.Add(7*time.Second)); show(act) != "-a.v2" || len(act.failed) != 1 {
			t.Errorf("then: %q, want the pod to be deleted", show(act))
		}
	}
}

func TestStatus(t *testing.T) {
	ds := agent("0", "1", func(ds *appsv1.DaemonSet) { ds.Spec.MinReadySeconds = 10 })
	act := plan(ds, read(ds, "a=v1:ready b=v2:young c=v2:starting d e!NoSchedule=v1:ready f!NoExecute x1=v1:ready"), now)
	want := appsv1.DaemonSetStatus{DesiredNumberScheduled: 4, CurrentNumberScheduled: 3, NumberMisscheduled: 1, NumberReady: 2, NumberAvailable: 1, NumberUnavailable: 3,
		UpdatedNumberScheduled: 2, ObservedGeneration: 1}
	if fmt.Sprint(act.status) != fmt.Sprint(want) || act.after != 5*time.Second {
		t.Errorf("status %+v, want %+v; another look after %v", act.status, want, act.after)
	}
}

func TestABurstIsLimited(t *testing.T) {
	ds := agent("0", "1")
	var names []string
	for i := range 1200 {
		names = append(names, fmt.Sprint("n", i))
	}
	if act := plan(ds, read(ds, strings.Join(names, " ")), now); len(act.create) != burst || !act.more {
		t.Errorf("%d pods at first, more %v", len(act.create), act.more)
	}
}

func TestOlderMarksOfARevisionCount(t *testing.T) {
	ds := agent("0", "1")
	obs := read(ds, "a=v1:ready b=7:ready")
	obs.same = []string{"v2", "v1"}
	delete(obs.pods[1].Labels, appsv1.DefaultDaemonSetUniqueLabelKey)
	if got := show(plan(ds, obs, now)); got != "" {
		t.Errorf("%q, want nothing: one has a further hash of the same template, the other no hash and its number", got)
	}
}

// TestPodsOfAnEarlierSetAreUpdated: the numbers of templates begin anew with each DaemonSet, so that adopted pods may have that of another template.
func TestPodsOfAnEarlierSetAreUpdated(t *testing.T) {
	ds := agent("0", "1")
	obs := read(ds, "a=v1:ready b=v2:ready")
	obs.pods[0].Labels[generationLabel] = generationOf(ds)
	if got := show(plan(ds, obs, now)); got != "-a.v1" {
		t.Errorf("%q, want the pod of the earlier template deleted", got)
	}
}

func TestAPodOfASet(t *testing.T) {
	ds := agent("0", "1", func(ds *appsv1.DaemonSet) {
		ds.Spec.Template.Spec.HostNetwork = true
		ds.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "mine", Operator: corev1.TolerationOpExists}}
		ds.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpExists}}}}}}}
	})
	p := newPod(ds, "abc", "a")
	if p.GenerateName != "agent-" || p.Labels["controller-revision-hash"] != "abc" || p.Labels["pod-template-generation"] != "7" || p.Labels["app"] != "agent" {
		t.Errorf("name %s, labels %v", p.GenerateName, p.Labels)
	}
	if len(p.Spec.Tolerations) != 8 || p.Spec.Tolerations[0].Key != "mine" || workload.TargetNode(p) != "a" || !metav1.IsControlledBy(p, ds) {
		t.Errorf("tolerations %v, node %s", p.Spec.Tolerations, workload.TargetNode(p))
	}
	if terms := ds.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms; len(terms[0].MatchExpressions) != 1 {
		t.Error("the template was changed")
	}
	fit := fitOf(ds)
	if run, _ := fit.judge(&corev1.Node{}); run {
		t.Error("a node without the label that the affinity asks for is eligible")
	}
	labelled := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"disk": "ssd"}}}
	if run, stay := fit.judge(labelled); !run || !stay {
		t.Error("a node with the label is not eligible")
	}
	fit.nodeName = "a"
	if run, stay := fit.judge(labelled); run || stay {
		t.Error("another than the node that the template names is eligible")
	}
}

func TestRevisionsBeyondTheLimitGo(t *testing.T) {
	one := int32(1)
	ds := agent("0", "1", func(ds *appsv1.DaemonSet) { ds.Spec.RevisionHistoryLimit = &one })
	var old []*appsv1.ControllerRevision
	for i, name := range []string{"a", "b", "c", "d"} {
		old = append(old, &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: name}, Revision: int64(i + 1)})
	}
	p := newPod(ds, "b", "n")
	var names []string
	for _, r := range excess(ds, old, []*corev1.Pod{p}) {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "a c d" {
		t.Errorf("%s go, want all but the one that a pod is of", got)
	}
}

func TestNodesWakeTheirSets(t *testing.T) {
	f := newFits()
	add := func(name string, selector map[string]string) {
		ds := agent("0", "1", func(ds *appsv1.DaemonSet) { ds.Name, ds.Spec.Template.Spec.NodeSelector = name, selector })
		f.note(client.Event{Type: client.Added, Object: ds})
	}
	add("all", nil)
	add("ssd", map[string]string{"disk": "ssd"})
	node := func(disk string, taint corev1.TaintEffect) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"disk": disk}}}
		if taint != "" {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: taint}}
		}
		return n
	}
	ready := node("hdd", "")
	ready.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	for _, tc := range []struct {
		name string
		e    client.Event
		want string
	}{
		{"a new node", client.Event{Type: client.Added, Object: node("hdd", "")}, "[default/all]"},
		{"a heartbeat", client.Event{Type: client.Modified, Old: node("hdd", ""), Object: ready}, "[]"},
		{"a label that one asks for", client.Event{Type: client.Modified, Old: node("hdd", ""), Object: node("ssd", "")}, "[default/ssd]"},
		{"a label that none asks for", client.Event{Type: client.Modified, Old: node("hdd", ""), Object: node("tape", "")}, "[]"},
		{"a taint", client.Event{Type: client.Modified, Old: node("hdd", ""), Object: node("hdd", corev1.TaintEffectNoSchedule)}, "[default/all]"},
		{"a harder taint", client.Event{Type: client.Modified, Old: node("ssd", corev1.TaintEffectNoSchedule), Object: node("ssd", corev1.TaintEffectNoExecute)}, "[default/all default/ssd]"},
		{"the end of a node", client.Event{Type: client.Deleted, Object: node("hdd", "")}, "[default/all default/ssd]"},
	} {
		if got := fmt.Sprint(f.nodeKeys(tc.e)); got != tc.want {
			t.Errorf("%s wakes %s, want %s", tc.name, got, tc.want)
		}
	}
	gone := agent("0", "1", func(ds *appsv1.DaemonSet) { ds.Name = "all" })
	f.note(client.Event{Type: client.Deleted, Object: gone})
	if got := f.nodeKeys(client.Event{Type: client.Added, Object: node("hdd", "")}); len(got) != 0 {
		t.Errorf("a set that is gone is woken: %v", got)
	}
}
