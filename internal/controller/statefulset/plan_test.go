package statefulset

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

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// db is a set called db as the server stores it, changed by changes.
func db(replicas int32, changes ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	zero, ten := int32(0), int32(10)
	s := &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db", UID: "db", Generation: 1},
		Spec: appsv1.StatefulSetSpec{Replicas: &replicas, Selector: ct.Selector("db"), Template: ct.Template("db", "v1"), ServiceName: "db",
			PodManagementPolicy: appsv1.OrderedReadyPodManagement, RevisionHistoryLimit: &ten,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: &zero}}},
	}
	for _, c := range changes {
		c(s)
	}
	return s
}

func parallel(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }
func onDelete(s *appsv1.StatefulSet) {
	s.Spec.UpdateStrategy = appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType}
}
func partition(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = &n }
}
func maxUnavailable(v string) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		n := intstr.Parse(v)
		s.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = &n
	}
}
func from(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: n} }
}
func minReady(n int32) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) { s.Spec.MinReadySeconds = n }
}

// pods reads ORDINAL:REVISION:STATE ... A state is ready, young (ready for five seconds), pending, starting (runs, and has never been
// ready), lost (was ready), crashing, failed or ending.
func pods(set *appsv1.StatefulSet, text string) []*corev1.Pod {
	var out []*corev1.Pod
	for _, word := range strings.Fields(text) {
		part := strings.Split(word, ":")
		var n int
		fmt.Sscan(part[0], &n)
		p := newPod(set, revision{part[1], &set.Spec.Template}, n)
		p.UID = types.UID(p.Name)
		start := metav1.NewTime(now.Add(-time.Hour))
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &start}
		ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute))}
		switch part[2] {
		case "young":
			ready.LastTransitionTime = metav1.NewTime(now.Add(-5 * time.Second))
		case "pending":
			p.Status.Phase, ready.Status = corev1.PodPending, corev1.ConditionFalse
		case "starting":
			ready.Status, ready.LastTransitionTime = corev1.ConditionFalse, start
		case "lost":
			ready.Status = corev1.ConditionFalse
		case "crashing":
			ready.Status = corev1.ConditionFalse
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		case "failed":
			p.Status.Phase, ready.Status = corev1.PodFailed, corev1.ConditionFalse
		case "ending":
			p.DeletionTimestamp = &start
		}
		p.Status.Conditions = []corev1.PodCondition{ready}
		out = append(out, p)
	}
	return out
}

// show writes what a plan does: +ORDINAL:REVISION for a pod to be made, -ORDINAL for one to be deleted.
func show(act actions) string {
	var out []string
	for _, p := range act.create {
		out = append(out, fmt.Sprintf("+%d:%s", ordinalOf(p), revisionOf(p)))
	}
	for _, p := range slices.Concat(act.replace, act.condemn, act.outdated) {
		out = append(out, fmt.Sprintf("-%d", ordinalOf(p)))
	}
	return strings.Join(out, " ")
}

func observe(set *appsv1.StatefulSet, have string) observed {
	return observed{selector: labels.SelectorFromSet(set.Spec.Selector.MatchLabels), pods: pods(set, have),
		current: revision{"v1", &set.Spec.Template}, update: revision{"v2", &set.Spec.Template}}
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  *appsv1.StatefulSet
		have string
		want string
	}{
		{"the first pod is made first", db(3), "", "+0:v2"},
		{"the next waits for it", db(3), "0:v2:starting", ""},
		{"and is made when it is ready", db(3), "0:v2:ready", "+1:v2"},
		{"and available", db(3, minReady(10)), "0:v2:young", ""},
		{"a pod that is missing is made before others go", db(3), "0:v2:ready 2:v2:ready 3:v2:ready", "+1:v2"},
		{"all at once", db(3, parallel), "1:v2:starting", "+0:v2 +2:v2"},
		{"ordinals from five on", db(2, from(5)), "0:v2:ready 5:v2:ready", "+6:v2"},
		{"what is below goes", db(2, from(5)), "0:v2:ready 5:v2:ready 6:v2:ready", "-0"},

		{"the last goes first", db(1), "0:v2:ready 1:v2:ready 2:v2:ready", "-2"},
		{"one at a time", db(1), "0:v2:ready 1:v2:ready 2:v2:ending", ""},
		{"not while an earlier one is not ready", db(1), "0:v2:lost 1:v2:ready 2:v2:ready", ""},
		{"the only one that is not ready may go", db(1), "0:v2:ready 1:v2:ready 2:v2:lost", "-2"},
		{"none goes while two are not ready", db(1), "0:v2:ready 1:v2:lost 2:v2:lost", ""},
		{"all at once go", db(1, parallel), "0:v2:lost 1:v2:lost 2:v2:lost", "-2 -1"},
		{"to nothing", db(0), "0:v2:ready 1:v2:ready", "-1"},

		{"an update begins at the end", db(3), "0:v1:ready 1:v1:ready 2:v1:ready", "-2"},
		{"and waits for its pod", db(3), "0:v1:ready 1:v1:ready 2:v2:starting", ""},
		{"and goes on", db(3), "0:v1:ready 1:v1:ready 2:v2:ready", "-1"},
		{"and waits for its end", db(3), "0:v1:ready 1:v1:ending 2:v2:ready", ""},
		{"down to the partition", db(3, partition(1)), "0:v1:ready 1:v2:ready 2:v2:ready", ""},
		{"below which pods are made as before", db(3, partition(1)), "1:v2:ready 2:v2:ready", "+0:v1"},
		{"a partition counts from the first ordinal", db(2, from(5), partition(1)), "5:v1:ready 6:v1:ready", "-6"},
		{"on deletion only", db(2, onDelete), "0:v1:ready 1:v1:ready", ""},
		{"with what is new", db(2, onDelete), "0:v1:ready", "+1:v2"},
		{"two at a time", db(4, maxUnavailable("2")), "0:v1:ready 1:v1:ready 2:v1:ready 3:v1:ready", "-3 -2"},
		{"half of five is two", db(5, maxUnavailable("50%"), parallel), "0:v1:ready 1:v1:ready 2:v1:ready 3:v1:ready 4:v1:ready", "-4 -3"},
		{"a tenth of three is one", db(3, maxUnavailable("10%"), parallel), "0:v1:ready 1:v1:ready 2:v1:ready", "-2"},
		{"parallel: what is missing counts", db(3, maxUnavailable("2"), parallel), "0:v1:ready 1:v1:ready", "+2:v2 -1"},
		{"parallel: what does not work goes at once", db(4, parallel), "0:v1:lost 1:v1:lost 2:v1:ready 3:v1:ready", "-1 -0"},
		{"parallel: but not beyond the partition", db(4, parallel, partition(1)), "0:v1:lost 1:v1:lost 2:v1:ready 3:v1:ready", "-1"},

		{"a pod that failed goes", db(2), "0:v2:ready 1:v2:failed", "-1"},
		{"each of them with parallel management", db(3, parallel), "0:v2:failed 1:v2:failed 2:v2:ready", "-0 -1"},
		{"a pod of two too many that failed goes", db(1), "0:v2:ready 1:v2:failed", "-1"},

		{"mended: a pod that has never been ready goes", db(3), "0:v1:starting", "-0"},
		{"mended: a pending one", db(3), "0:v1:pending", "-0"},
		{"mended: one that crashes", db(3), "0:v1:ready 1:v1:crashing", "-1"},
		{"mended: one that was ready is waited for", db(3), "0:v1:ready 1:v1:lost 2:v1:ready", ""},
		{"mended: unless it is of a revision in between", db(3), "0:v1:ready 1:v1:ready 2:x:lost", "-2"},
		{"mended: one at a time", db(3, partition(0)), "0:v1:starting 1:v1:starting 2:v2:starting", ""},
		{"mended: the last first", db(3), "0:v1:starting 1:v1:ready 2:x:starting", "-2"},
		{"mended: as many as may be unavailable", db(4, maxUnavailable("3")), "0:v1:starting 1:v1:starting 2:v1:ending 3:v1:starting", "-3 -1"},
		{"mended: not below the partition", db(3, partition(1)), "0:v1:starting", ""},
		{"mended: not if updates are on deletion", db(3, onDelete), "0:v1:starting", ""},
		{"not mended: the present one is waited for", db(3), "0:v2:starting", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := show(plan(tc.set, observe(tc.set, tc.have), now)); got != tc.want {
				t.Errorf("of %q: %q, want %q", tc.have, got, tc.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  *appsv1.StatefulSet
		have string
		want string // replicas ready available current updated, and what is current
	}{
		{"an update under way", db(4, minReady(10)), "0:v1:ready 1:v1:ready 2:v1:ending 3:v2:young", "4 4 3 2 1 v1"},
		{"its end", db(2), "0:v2:ready 1:v2:ready", "2 2 2 2 2 v2"},
		{"not before the surplus is gone", db(1), "0:v2:ready 1:v2:ready", "2 2 2 0 2 v1"},
		{"nor before all are ready", db(2), "0:v2:ready 1:v2:starting", "2 1 1 0 2 v1"},
		{"nor while one beyond the replicas stands for another", db(1), "1:v2:ready", "1 1 1 0 1 v1"},
		{"nothing", db(0), "", "0 0 0 0 0 v2"},
	} {
		act := plan(tc.set, observe(tc.set, tc.have), now)
		st := act.status
		got := fmt.Sprintf("%d %d %d %d %d %s", st.Replicas, st.ReadyReplicas, st.AvailableReplicas, st.CurrentReplicas, st.UpdatedReplicas, st.CurrentRevision)
		if got != tc.want || st.UpdateRevision != "v2" || st.ObservedGeneration != 1 || *st.CollisionCount != 0 {
			t.Errorf("%s: status %s, want %s (%+v)", tc.name, got, tc.want, st)
		}
	}
	if act := plan(db(2, minReady(10)), observe(db(2), "0:v2:young"), now); act.after != 5*time.Second {
		t.Errorf("another look after %v, want when the pod becomes available", act.after)
	}
}

func TestAHoldKeepsAFailedPod(t *testing.T) {
	set := db(2)
	obs := observe(set, "0:v2:failed")
	obs.holds = map[types.UID]time.Time{"db-0": now.Add(7 * time.Second)}
	if act := plan(set, obs, now); show(act) != "" || act.after != 7*time.Second {
		t.Errorf("%q after %v, want nothing for seven seconds", show(act), act.after)
	}
	if got := show(plan(set, obs, now.Add(7*time.Second))); got != "-0" {
		t.Errorf("then: %q, want the pod to be deleted", got)
	}
}

func TestASetThatIsDeletedChangesNothing(t *testing.T) {
	set := db(2)
	set.DeletionTimestamp = &metav1.Time{Time: now}
	if act := plan(set, observe(set, "0:v1:ready 2:v1:ready"), now); act.wrote() || act.status.Replicas != 2 {
		t.Errorf("%+v, want a status alone", act)
	}
}

func TestABurstIsLimited(t *testing.T) {
	set := db(1_000_000_000, parallel, func(s *appsv1.StatefulSet) {
		s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
	})
	act := plan(set, observe(set, "7:v2:ready"), now)
	if len(act.create) != burst || !act.more || len(act.claims) != burst || len(ordinals(set, pods(set, "7:v2:ready"))) != burst+1 {
		t.Errorf("%d pods and %d claims, more %v; want %d at first", len(act.create), len(act.claims), act.more, burst)
	}
}

func TestNamesOfMembers(t *testing.T) {
	for name, want := range map[string]string{"db-0": "db 0", "db-12": "db 12", "a-b-3": "a-b 3", "db": " -1", "db-": " -1", "db-01": " -1", "db-x1": " -1",
		"db-99999999999": " -1", "db--1": "db- 1"} {
		set, n := parse(name)
		if got := fmt.Sprint(set, " ", n); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestStrangersAreReleased(t *testing.T) {
	set := db(2)
	all := pods(set, "0:v2:ready 1:v2:ready 2:v2:ready")
	all[1].Name = "debug"
	all[2].OwnerReferences, all[2].Name = nil, "other-2"
	mine, adopt, release := claim(set, labels.SelectorFromSet(set.Spec.Selector.MatchLabels), all)
	if len(mine) != 1 || len(adopt) != 0 || len(release) != 1 || release[0].Name != "debug" {
		t.Errorf("%d are its own, %d adopted, %d released; want 1, 0 and the one that is called debug", len(mine), len(adopt), len(release))
	}
}

func TestAPodOfASet(t *testing.T) {
	set := db(3, func(s *appsv1.StatefulSet) {
		s.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "tmp"}, {Name: "data"}}
		s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data", Labels: map[string]string{"a": "b"}}}}
	})
	p := newPod(set, revision{"db-abc", &set.Spec.Template}, 2)
	want := map[string]string{"app": "db", "statefulset.kubernetes.io/pod-name": "db-2", "apps.kubernetes.io/pod-index": "2", "controller-revision-hash": "db-abc"}
	if p.Name != "db-2" || p.GenerateName != "" || fmt.Sprint(p.Labels) != fmt.Sprint(want) || p.Spec.Hostname != "db-2" || p.Spec.Subdomain != "db" || !metav1.IsControlledBy(p, set) {
		t.Errorf("pod %+v, want the identity of db-2", p)
	}
	if v := p.Spec.Volumes; len(v) != 2 || v[0].PersistentVolumeClaim.ClaimName != "data-db-2" || v[1].Name != "tmp" {
		t.Errorf("volumes %+v, want the claim in place of the template's data", v)
	}
	if c := claimsOf(set, 2)[0]; c.Name != "data-db-2" || c.Labels["a"] != "b" || c.Labels["app"] != "db" || len(set.Spec.VolumeClaimTemplates[0].Labels) != 1 {
		t.Errorf("claim %+v, want the labels of the template and of the selector", c)
	}
	if mended(set, p) != nil {
		t.Error("a pod as it is made is mended")
	}
	delete(p.Labels, appsv1.StatefulSetPodNameLabel)
	p.Spec.Volumes = nil
	if fixed := mended(set, p); fixed == nil || fixed.Labels[appsv1.StatefulSetPodNameLabel] != "db-2" || len(fixed.Spec.Volumes) != 1 {
		t.Errorf("mended: %+v, want label and volume", fixed)
	}
}
