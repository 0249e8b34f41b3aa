package job

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func index(p *corev1.Pod) int {
	i, _ := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	return i
}

func onExit(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}}
}

func TestFailurePolicies(t *testing.T) {
	disrupted := []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
	job := newJob("a", 1, 1, func(j *batchv1.Job) {
		j.Namespace = "ns"
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: disrupted},
			onExit(batchv1.PodFailurePolicyActionFailJob, 42), onExit(batchv1.PodFailurePolicyActionFailIndex, 43), onExit(batchv1.PodFailurePolicyActionCount, 44),
			{Action: batchv1.PodFailurePolicyActionIgnore, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: ptr.To("side"), Operator: batchv1.PodFailurePolicyOnExitCodesOpNotIn, Values: []int32{1, 2}}},
		}}
	})
	ended := func(name string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
	}
	for _, tc := range []struct {
		what     string
		statuses []corev1.ContainerStatus
		disrupt  bool
		want     verdict
	}{
		{"no rule", []corev1.ContainerStatus{ended("c", 1)}, false, verdict{}},
		{"FailJob", []corev1.ContainerStatus{ended("c", 42)}, false, verdict{batchv1.PodFailurePolicyActionFailJob, "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 1"}},
		{"FailIndex", []corev1.ContainerStatus{ended("c", 43)}, false, verdict{action: batchv1.PodFailurePolicyActionFailIndex}},
		{"Count", []corev1.ContainerStatus{ended("c", 44)}, false, verdict{action: batchv1.PodFailurePolicyActionCount}},
		{"a condition first", []corev1.ContainerStatus{ended("c", 42)}, true, verdict{action: batchv1.PodFailurePolicyActionIgnore}},
		{"not in, of one container", []corev1.ContainerStatus{ended("c", 7), ended("side", 7)}, false, verdict{action: batchv1.PodFailurePolicyActionIgnore}},
		{"one that ended well matches nothing", []corev1.ContainerStatus{ended("side", 0)}, false, verdict{}},
		{"one that has not ended, neither", []corev1.ContainerStatus{{Name: "side"}}, false, verdict{}},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}, Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: tc.statuses}}
		if tc.disrupt {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
		}
		if got := judge(job, p); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.what, got, tc.want)
		}
	}
}

func TestSuccessPolicies(t *testing.T) {
	rule := func(set string, count int32) (r batchv1.SuccessPolicyRule) {
		if set != "" {
			r.SucceededIndexes = &set
		}
		if count > 0 {
			r.SucceededCount = &count
		}
		return r
	}
	for _, tc := range []struct {
		rules []batchv1.SuccessPolicyRule
		done  string
		want  string
	}{
		{[]batchv1.SuccessPolicyRule{rule("0,2-3", 0)}, "0,2", ""},
		{[]batchv1.SuccessPolicyRule{rule("0,2-3", 0)}, "0-3,7", "Matched rules at index 0"},
		{[]batchv1.SuccessPolicyRule{rule("0,2-3", 2)}, "2-3", "Matched rules at index 0"},
		{[]batchv1.SuccessPolicyRule{rule("0", 0), rule("", 2)}, "5,9", "Matched rules at index 1"},
		{[]batchv1.SuccessPolicyRule{rule("20-30", 0)}, "0-9", ""}, // there are only ten
		{[]batchv1.SuccessPolicyRule{rule("", 1)}, "", ""},
	} {
		if got := succeeds(&batchv1.SuccessPolicy{Rules: tc.rules}, 10, parseIndexes(tc.done, 10)); got != tc.want {
			t.Errorf("%+v with %q done: %q, want %q", tc.rules, tc.done, got, tc.want)
		}
	}
}

func TestIndexSets(t *testing.T) {
	for in, want := range map[string]string{"": "", "3": "3", "1,2": "1,2", "0-2": "0-2", "0,1,2,5-6": "0-2,5,6", "5,1": "1,5", "x,2,3-y,4": "2,4", "7-20": "7-9", "12": "", "1-4,3-6": "1-6"} {
		if got := parseIndexes(in, 10).String(); got != want {
			t.Errorf("%q is read as %q, want %q", in, got, want)
		}
	}
	s := parseIndexes("0-2,5,8", 10)
	if got := s.missing(4, 10); !slices.Equal(got, []int{3, 4, 6, 7}) {
		t.Errorf("missing: %v", got)
	}
	if got := s.missing(100, 1_000_000_000); len(got) != 100 {
		t.Errorf("of very many, %d are missing", len(got))
	}
	if s.total() != 5 || !s.has(1) || s.has(3) || !s.has(8) || s.has(9) || s.common(parseIndexes("2-5,9", 10)) != 2 || s.union(parseIndexes("3-4", 10)).String() != "0-5,8" {
		t.Errorf("%v: %d, %v", s, s.total(), s.union(parseIndexes("3-4", 10)))
	}
}

func TestFailJobEndsTheJob(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 5*time.Second, func(p *corev1.Pod) (int32, time.Duration) {
			if index(p) == 1 {
				return 42, 3 * time.Second
			}
			return 0, time.Hour
		})
		ct.Make(c, newJob("a", 4, 4, byIndex, func(j *batchv1.Job) {
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{onExit(batchv1.PodFailurePolicyActionFailJob, 42)}}
		}))
		c.Pass(4 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 3 succeeded 0 failed 4 FailureTarget=PodFailurePolicy")
		c.Pass(10 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 0 failed 4 FailureTarget=PodFailurePolicy Failed=PodFailurePolicy")
	})
}

func TestLimitsPerIndex(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		tried := map[int]int{}
		seen := map[types.UID]bool{}
		start(c, 0, func(p *corev1.Pod) (int32, time.Duration) {
			if !seen[p.UID] {
				seen[p.UID] = true
				tried[index(p)]++
			}
			if index(p)%2 == 1 {
				return 1, time.Second
			}
			return 0, time.Second
		})
		ct.Make(c, newJob("a", 4, 4, byIndex, func(j *batchv1.Job) { j.Spec.BackoffLimitPerIndex = ptr.To(int32(1)) }))
		c.Pass(5 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 2 failed 0 done 0,2 lost") // the failed ones wait for their successors
		c.Pass(time.Minute)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 2 failed 4 done 0,2 lost 1,3 FailureTarget=FailedIndexes Failed=FailedIndexes")
		if tried[1] != 2 || tried[3] != 2 || tried[0] != 1 {
			t.Errorf("tries by index: %v", tried)
		}
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			if tracked(p) {
				t.Errorf("pod %s still has the finalizer", p.Name)
			}
		}
	})
}

func TestMaxFailedIndexesAndFailIndex(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(43, time.Second))
		ct.Make(c, newJob("a", 10, 3, byIndex, func(j *batchv1.Job) {
			j.Spec.BackoffLimitPerIndex, j.Spec.MaxFailedIndexes = ptr.To(int32(5)), ptr.To(int32(2))
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{onExit(batchv1.PodFailurePolicyActionFailIndex, 43)}}
		}))
		c.Pass(time.Minute)
		j := ct.Get[*batchv1.Job](c, ns, "a")
		if failed := find(j.Status.Conditions, batchv1.JobFailed); failed == nil || failed.Reason != batchv1.JobReasonMaxFailedIndexesExceeded || *j.Status.FailedIndexes != "0-2" {
			t.Errorf("%s", status(j))
		}
	})
}

func TestSuccessPolicyEndsTheJob(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, func(p *corev1.Pod) (int32, time.Duration) {
			if index(p) == 0 {
				return 0, 2 * time.Second
			}
			return 0, time.Hour
		})
		ct.Make(c, newJob("a", 3, 3, byIndex, func(j *batchv1.Job) {
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: ptr.To("0")}}}
		}))
		c.Pass(10 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 1 failed 0 done 0 SuccessCriteriaMet=SuccessPolicy Complete=SuccessPolicy")
	})
}

func TestSuspendAndResume(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(0, 10*time.Second))
		ct.Make(c, newJob("a", 2, 2, func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) }))
		c.Pass(time.Minute)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 0 failed 0 Suspended=JobSuspended")
		if s := ct.Get[*batchv1.Job](c, ns, "a").Status; s.StartTime != nil {
			t.Errorf("it has started at %v although suspended", s.StartTime)
		}
		set := func(v bool) { ct.Change(c, ns, "a", "", func(j *batchv1.Job) { j.Spec.Suspend = &v }) }
		set(false)
		c.Pass(5 * time.Second)
		expect(c, "a", "active 2 ready 2 terminating 0 succeeded 0 failed 0")
		set(true)
		c.Pass(2 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 0 failed 0 Suspended=JobSuspended")
		if s := ct.Get[*batchv1.Job](c, ns, "a").Status; s.StartTime != nil {
			t.Errorf("it has started at %v although suspended again", s.StartTime)
		}
		set(false)
		c.Pass(20 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 2 failed 0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached")
		if len(c.Events("Suspended")) == 0 || len(c.Events("Resumed")) == 0 {
			t.Errorf("events %v, %v", c.Events("Suspended"), c.Events("Resumed"))
		}
	})
}

func TestReplacementPolicies(t *testing.T) {
	for policy, want := range map[batchv1.PodReplacementPolicy]string{
		batchv1.TerminatingOrFailed: "active 1 ready 1 terminating 1 succeeded 0 failed 1",
		batchv1.Failed:              "active 0 ready 0 terminating 1 succeeded 0 failed 0",
	} {
		ct.Run(t, func(c *ct.Cluster) {
			start(c, 25*time.Second, always(0, time.Hour))
			ct.Make(c, newJob("a", 1, 1, func(j *batchv1.Job) {
				j.Spec.PodReplacementPolicy = &policy
				j.Spec.Template.Spec.TerminationGracePeriodSeconds = ptr.To(int64(60))
			}))
			c.Settle()
			ct.Delete[*corev1.Pod](c, ns, ct.All[*corev1.Pod](c, ns)[0].Name, metav1.DeleteOptions{})
			c.Pass(15 * time.Second) // and the pause of a first failure
			expect(c, "a", want)
			c.Pass(time.Minute)
			expect(c, "a", "active 1 ready 1 terminating 0 succeeded 0 failed 1")
		})
	}
}

func TestDeadline(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(0, time.Hour))
		ct.Make(c, newJob("a", 1, 1, func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To(int64(30)) }))
		ct.Make(c, newJob("as-good-as-none", 1, 1, func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To[int64](math.MaxInt64) }))
		c.Pass(29 * time.Second)
		expect(c, "a", "active 1 ready 1 terminating 0 succeeded 0 failed 0")
		c.Pass(3 * time.Second)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 0 failed 1 FailureTarget=DeadlineExceeded Failed=DeadlineExceeded")
		expect(c, "as-good-as-none", "active 1 ready 1 terminating 0 succeeded 0 failed 0")
		if e := c.Events("DeadlineExceeded"); !slices.Equal(e, []string{"Job was active longer than specified deadline"}) {
			t.Errorf("events %v", e)
		}
	})
}

func TestJobsOfOtherControllersAreLeftAlone(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(0, time.Second))
		ct.Make(c, newJob("a", 1, 1, func(j *batchv1.Job) { j.Spec.ManagedBy = ptr.To("example.com/other") }))
		c.Pass(time.Minute)
		if j := ct.Get[*batchv1.Job](c, ns, "a"); len(ct.All[*corev1.Pod](c, ns)) != 0 || j.Status.StartTime != nil {
			t.Errorf("%s", status(j))
		}
	})
}

func TestPodsAreAdoptedReleasedAndSetFree(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(0, time.Hour))
		j := ct.Make(c, newJob("a", 2, 2))
		c.Settle()
		p := ct.All[*corev1.Pod](c, ns)[0]
		ct.Change(c, ns, p.Name, "", func(o *corev1.Pod) { o.OwnerReferences = nil })
		c.Settle()
		if o := ct.Get[*corev1.Pod](c, ns, p.Name); !metav1.IsControlledBy(o, j) || !tracked(o) {
			t.Errorf("a pod that matches is controlled by %v, finalizers %v", o.OwnerReferences, o.Finalizers)
		}
		ct.Change(c, ns, p.Name, "", func(o *corev1.Pod) { o.Labels = map[string]string{"debug": "1"} })
		c.Settle()
		if o := ct.Get[*corev1.Pod](c, ns, p.Name); metav1.GetControllerOf(o) != nil || tracked(o) {
			t.Errorf("a pod that no longer matches is controlled by %v, finalizers %v", o.OwnerReferences, o.Finalizers)
		}
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 3 {
			t.Errorf("%d pods, want the released one and two", n)
		}
		orphan := metav1.DeletePropagationBackground
		ct.Delete[*batchv1.Job](c, ns, "a", metav1.DeleteOptions{PropagationPolicy: &orphan})
		c.Settle()
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			if tracked(p) {
				t.Errorf("pod %s has the finalizer although its Job is gone", p.Name)
			}
		}
	})
}

func TestSurplusPodsGoFirst(t *testing.T) {
	job := newJob("a", 3, 3, byIndex)
	at := func(name, index string, ready bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Finalizers: []string{batchv1.JobTrackingFinalizer}, Annotations: map[string]string{batchv1.JobCompletionIndexAnnotation: index}}}
		p.Spec.NodeName, p.Status.Phase = "n", corev1.PodRunning
		if ready {
			ct.MakeReady(p, "10.0.0.1", time.Now())
		}
		return p
	}
	f := look(job, observed{pods: []*corev1.Pod{at("a0", "0", true), at("b0", "0", false), at("c1", "1", true), at("d9", "9", true), at("e", "", true)}})
	var doomed []string
	for _, p := range f.surplus(0) {
		doomed = append(doomed, p.Name)
	}
	slices.Sort(doomed)
	if !slices.Equal(doomed, []string{"b0", "d9", "e"}) {
		t.Errorf("%v go, want the less ready of two of an index, and those without one that counts", doomed)
	}
}
