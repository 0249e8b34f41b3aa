package podautoscaler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var midday = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// pods reads a row of pods, each a letter: r runs and is ready, s started a minute ago, u is not ready and never was, p is pending, f has
// failed, d is being deleted. Each requests 1000m in container c.
func pods(row string) (out []*corev1.Pod) {
	for i, letter := range row {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}
		p.Status.Phase = corev1.PodRunning
		began, ready := midday.Add(-time.Hour), corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(midday.Add(-time.Hour))}
		switch letter {
		case 's':
			began, ready.LastTransitionTime = midday.Add(-time.Minute), metav1.NewTime(midday.Add(-10*time.Second))
		case 'u':
			ready.Status = corev1.ConditionFalse
		case 'p':
			p.Status.Phase = corev1.PodPending
		case 'f':
			p.Status.Phase = corev1.PodFailed
		case 'd':
			p.DeletionTimestamp = ptr.To(metav1.NewTime(midday))
		}
		p.Status.StartTime, p.Status.Conditions = ptr.To(metav1.NewTime(began)), []corev1.PodCondition{ready}
		out = append(out, p)
	}
	return out
}

// used reads what each pod uses, in thousandths; a negative number is not known.
func used(values ...int64) map[string]figure {
	out := map[string]figure{}
	for i, v := range values {
		if v >= 0 {
			out[fmt.Sprintf("p%d", i)] = figure{value: v, at: midday.Add(-5 * time.Second), window: 10 * time.Second}
		}
	}
	return out
}

// TestAverages decides by processor time, at a target of 50 % of 1000m: what starts or cannot be measured makes the decision careful.
func TestAverages(t *testing.T) {
	half := target{percent: 50}
	tol := tolerances{0.1, 0.1}
	for _, tc := range []struct {
		what    string
		pods    string
		used    map[string]figure
		current int32
		tol     tolerances
		want    int32
		percent int32
	}{
		{"at the target", "rrr", used(500, 500, 500), 3, tol, 3, 50},
		{"within the tolerance", "rrr", used(540, 540, 540), 3, tol, 3, 54},
		{"above it", "rrr", used(600, 600, 600), 3, tol, 4, 60},
		{"half", "rrrr", used(250, 250, 250, 250), 4, tol, 2, 25},
		{"a wide tolerance upwards", "rrr", used(800, 800, 800), 3, tolerances{0.1, 0.7}, 3, 80},
		{"no tolerance downwards", "rrrr", used(490, 490, 490, 490), 4, tolerances{0, 0.1}, 4, 49},
		{"pods that start count as idle when there is more to do", "rrs", used(1000, 1000, 1000), 3, tol, 4, 100},
		{"and do not count when there is less", "rrs", used(250, 250, 1000), 3, tol, 1, 25},
		{"pending ones, too", "rrp", used(750, 750, -1), 3, tol, 3, 75},
		{"pods without figures count as idle when there is more to do", "rrr", used(1000, 1000, -1), 3, tol, 4, 100},
		{"and as busy when there is less", "rrr", used(250, 250, -1), 3, tol, 3, 25},
		{"one of many", "rrrrr", used(100, 100, 100, 100, -1), 5, tol, 3, 10},
		{"pods that are gone do not count", "rrfd", used(1000, 1000, 1000, 1000), 2, tol, 4, 100},
		{"nor those that never were ready", "rru", used(1000, 1000, 1000), 3, tol, 4, 100},
	} {
		ps := pods(tc.pods)
		goal := half
		var err error
		if goal.requests, err = requests(ps, "c", corev1.ResourceCPU); err != nil {
			t.Fatal(err)
		}
		n, u, err := average(ps, tc.used, corev1.ResourceCPU, goal, tc.tol, tc.current, midday)
		if n != tc.want || u.percent != tc.percent || err != nil {
			t.Errorf("%s: %d replicas at %d %%, %v; want %d at %d %%", tc.what, n, u.percent, err, tc.want, tc.percent)
		}
	}
}

func TestAveragesThatCannotBeHad(t *testing.T) {
	for what, tc := range map[string]struct {
		pods string
		used map[string]figure
		want string
	}{
		"no pods":                {"", nil, "no pods returned by selector"},
		"no figures":             {"rr", used(), "did not receive metrics for targeted pods"},
		"only of those starting": {"ss", used(1, 1), "did not receive metrics for targeted pods"},
	} {
		_, _, err := average(pods(tc.pods), tc.used, corev1.ResourceCPU, target{average: 100}, tolerances{0.1, 0.1}, 2, midday)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", what, err, tc.want)
		}
	}
	for what, change := range map[string]func(*corev1.Pod){
		"missing request for memory in container c of Pod p0": func(*corev1.Pod) {},
		"missing pod-level request for memory in Pod p0": func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
		},
	} {
		ps := pods("r")
		change(ps[0])
		if _, err := requests(ps, "", corev1.ResourceMemory); err == nil || err.Error() != what {
			t.Errorf("error %v, want %q", err, what)
		}
	}
	if _, err := requests(pods("r"), "other", corev1.ResourceCPU); err == nil || err.Error() != "container other not found in Pod p0" {
		t.Errorf("error %v", err)
	}
}

func TestLimits(t *testing.T) {
	policy := func(kind autoscalingv2.HPAScalingPolicyType, value, period int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: kind, Value: value, PeriodSeconds: period}
	}
	rules := func(choice autoscalingv2.ScalingPolicySelect, policies ...autoscalingv2.HPAScalingPolicy) *autoscalingv2.HPAScalingRules {
		return &autoscalingv2.HPAScalingRules{SelectPolicy: &choice, Policies: policies}
	}
	both := []autoscalingv2.HPAScalingPolicy{policy(autoscalingv2.PodsScalingPolicy, 4, 60), policy(autoscalingv2.PercentScalingPolicy, 100, 60)}
	mix := func(choice autoscalingv2.ScalingPolicySelect) *autoscalingv2.HorizontalPodAutoscalerBehavior {
		return &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: rules(choice, both...), ScaleDown: rules(choice, policy(autoscalingv2.PodsScalingPolicy, 4, 60), policy(autoscalingv2.PercentScalingPolicy, 10, 60))}
	}
	lately := history{up: []entry{{3, midday.Add(-30 * time.Second)}, {5, midday.Add(-2 * time.Minute)}}}
	for _, tc := range []struct {
		what            string
		b               *autoscalingv2.HorizontalPodAutoscalerBehavior
		h               history
		current, wanted int32
		want            int32
		reason          string
	}{
		{"no behavior: at most twice as many", nil, history{}, 5, 20, 10, "ScaleUpLimit"},
		{"or four", nil, history{}, 1, 20, 4, "ScaleUpLimit"},
		{"never above the maximum", nil, history{}, 60, 200, 100, "TooManyReplicas"},
		{"nor below the minimum", nil, history{}, 60, 1, 2, "TooFewReplicas"},
		{"the policy that allows most", mix(autoscalingv2.MaxChangePolicySelect), history{}, 10, 50, 20, "ScaleUpLimit"},
		{"the policy that allows least", mix(autoscalingv2.MinChangePolicySelect), history{}, 10, 50, 14, "ScaleUpLimit"},
		{"what was added in the period counts", mix(autoscalingv2.MinChangePolicySelect), lately, 10, 50, 11, "ScaleUpLimit"},
		{"within the limit", mix(autoscalingv2.MaxChangePolicySelect), history{}, 10, 15, 15, "DesiredWithinRange"},
		{"downwards, most", mix(autoscalingv2.MaxChangePolicySelect), history{}, 100, 5, 90, "ScaleDownLimit"},
		{"downwards, least", mix(autoscalingv2.MinChangePolicySelect), history{}, 100, 5, 96, "ScaleDownLimit"},
		{"disabled", mix(autoscalingv2.DisabledPolicySelect), history{}, 10, 50, 10, "ScaleUpLimit"},
	} {
		got := limit(tc.b, tc.h, bounds{2, 100}, tc.current, tc.wanted, midday)
		if got.replicas != tc.want || got.reason != tc.reason {
			t.Errorf("%s: from %d to %d: %d (%s), want %d (%s)", tc.what, tc.current, tc.wanted, got.replicas, got.reason, tc.want, tc.reason)
		}
	}
}

func TestStabilization(t *testing.T) {
	h := history{recommended: []entry{{9, midday.Add(-4 * time.Minute)}, {3, midday.Add(-30 * time.Second)}}}
	slow := &autoscalingv2.HorizontalPodAutoscalerBehavior{
		ScaleUp: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: ptr.To(int32(60))}, ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: ptr.To(int32(120))}}
	for _, tc := range []struct {
		b               *autoscalingv2.HorizontalPodAutoscalerBehavior
		current, wanted int32
		want            int32
	}{
		{nil, 9, 2, 9}, {nil, 9, 12, 12}, {slow, 5, 8, 5}, {slow, 2, 8, 3}, {slow, 5, 2, 3}, {slow, 3, 3, 3},
	} {
		if got := steady(tc.b, h, tc.current, tc.wanted, midday); got.replicas != tc.want {
			t.Errorf("from %d to %d (behavior %v): %d, want %d", tc.current, tc.wanted, tc.b != nil, got.replicas, tc.want)
		}
	}
}

// TestSeveralMetrics: the metric that asks for most decides; one that cannot be read keeps others from taking replicas away.
func TestSeveralMetrics(t *testing.T) {
	single := func(name string, goal autoscalingv2.MetricTarget) autoscalingv2.MetricSpec {
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: autoscalingv2.MetricIdentifier{Name: name}, Target: goal}}
	}
	goal := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: resource.NewQuantity(10, resource.DecimalSI)}
	each := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewQuantity(10, resource.DecimalSI)}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 100, Metrics: []autoscalingv2.MetricSpec{single("a", goal), single("b", each)}}}
	lost := reading{err: fmt.Errorf("no answer")}
	for _, tc := range []struct {
		a, b   reading
		want   int32
		reason string
	}{
		{reading{values: []int64{10000}}, reading{values: []int64{30000, 40000}}, 7, "ValidMetricFound"},
		{reading{values: []int64{20000}}, reading{values: []int64{10000}}, 8, "ValidMetricFound"},
		{reading{values: []int64{20000}}, lost, 8, "ValidMetricFound"},
		{reading{values: []int64{5000}}, lost, 4, "FailedGetExternalMetric"},
		{lost, lost, 4, "FailedGetExternalMetric"},
	} {
		obs := observed{scale: &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: 4}, Status: autoscalingv1.ScaleStatus{Replicas: 4, Selector: "app=x"}}, pods: pods("rrrr"), readings: []reading{tc.a, tc.b}}
		act := plan(hpa, obs, midday)
		reason := ""
		for _, c := range act.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive {
				reason = c.Reason
			}
		}
		if act.To != tc.want || reason != tc.reason {
			t.Errorf("%+v and %+v: %d replicas, %s; want %d, %s", tc.a, tc.b, act.To, reason, tc.want, tc.reason)
		}
	}
}
