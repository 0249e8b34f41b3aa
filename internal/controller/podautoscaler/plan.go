package podautoscaler

import (
	"errors"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/controller/event"
)

// observed is what a plan is made from.
type observed struct {
	scale    *autoscalingv1.Scale // nil where there is none, err says why
	err      error
	pods     []*corev1.Pod // that the scale selects
	rivals   []string      // the autoscalers that select some of these pods, this one included, if there are several
	readings []reading     // one for each metric of the spec
	history  history
}

// reading is what the metrics APIs say about one metric.
type reading struct {
	figures map[string]figure // of each pod
	values  []int64           // of what is not a pod, in thousandths
	err     error
	took    time.Duration // to read it
}

// actions is what to do about an autoscaler.
type actions struct {
	Status  autoscalingv2.HorizontalPodAutoscalerStatus
	Rescale bool
	From    int32
	To      int32
	Reason  string // why From becomes To
	Events  []event.Event
	History history
	Failed  error // why not everything could be computed
	// Computed is what each metric asked for that was looked at.
	Computed []computation
}

// computation is what one metric asked for.
type computation struct {
	i      int // its place in the spec
	kind   autoscalingv2.MetricSourceType
	action string
	err    error
}

func (act *actions) set(which autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, message string, now time.Time) {
	next := autoscalingv2.HorizontalPodAutoscalerCondition{Type: which, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
	for i, c := range act.Status.Conditions {
		if c.Type == which {
			if c.Status == status {
				next.LastTransitionTime = c.LastTransitionTime
			}
			act.Status.Conditions[i] = next
			return
		}
	}
	act.Status.Conditions = append(act.Status.Conditions, next)
}

func (act *actions) say(e event.Event) { act.Events = append(act.Events, e) }

// errNoSelector is that a scale names no pods.
var errNoSelector = errors.New("selector is required")

// selectorOf returns which pods a scale is about.
func selectorOf(scale *autoscalingv1.Scale) (labels.Selector, error) {
	if scale.Status.Selector == "" {
		return nil, errNoSelector
	}
	selector, err := labels.Parse(scale.Status.Selector)
	if err != nil {
		return nil, fmt.Errorf("couldn't convert selector into a corresponding internal selector object: %w", err)
	}
	return selector, nil
}

func least(hpa *autoscalingv2.HorizontalPodAutoscaler) int32 {
	return ptr.Deref(hpa.Spec.MinReplicas, 1)
}

// wasScaledToZero reports whether it was the autoscaler that took the last replica away (KEP-2021).
func wasScaledToZero(hpa *autoscalingv2.HorizontalPodAutoscaler) bool {
	for _, c := range hpa.Status.Conditions {
		if c.Type == autoscalingv2.ScaledToZero {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// seesWithoutPods reports whether the autoscaler has a metric that is there without pods.
func seesWithoutPods(hpa *autoscalingv2.HorizontalPodAutoscaler) bool {
	for _, m := range hpa.Spec.Metrics {
		if m.Type == autoscalingv2.ObjectMetricSourceType || m.Type == autoscalingv2.ExternalMetricSourceType {
			return true
		}
	}
	return false
}

// measures reports whether metrics decide about the number of replicas.
func measures(hpa *autoscalingv2.HorizontalPodAutoscaler, current int32) bool {
	if current == 0 {
		return wasScaledToZero(hpa) && (least(hpa) != 0 || seesWithoutPods(hpa))
	}
	return current <= hpa.Spec.MaxReplicas && current >= least(hpa)
}

// plan decides how many replicas the target of an autoscaler is to have.
func plan(hpa *autoscalingv2.HorizontalPodAutoscaler, obs observed, now time.Time) actions {
	act := actions{Status: *hpa.Status.DeepCopy(), History: obs.history.forget(now)}
	if obs.scale == nil {
		act.say(event.Warning(hpa, "FailedGetScale", "%s", obs.err))
		act.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", fmt.Sprintf("the HPA controller was unable to get the target's current scale: %v", obs.err), now)
		act.Failed = obs.err
		return act
	}
	act.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale", now)
	current := obs.scale.Spec.Replicas
	if len(act.History.recommended) == 0 {
		act.History.recommended = []entry{{current, now}}
	}
	act.From, act.To = current, current
	act.Status.CurrentReplicas, act.Status.CurrentMetrics, act.Status.ObservedGeneration = current, nil, ptr.To(hpa.Generation)
	switch {
	case measures(hpa, current):
		if !act.measure(hpa, obs, now) {
			return act
		}
	case current == 0:
		act.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero", now)
	case current > hpa.Spec.MaxReplicas:
		act.To, act.Reason = hpa.Spec.MaxReplicas, "Current number of replicas above Spec.MaxReplicas"
	default:
		act.To, act.Reason = least(hpa), "Current number of replicas below Spec.MinReplicas"
	}
	act.Rescale = act.To != current
	act.Status.DesiredReplicas = act.To
	return act
}

// measure decides by the metrics; it returns false where they do not allow a decision.
func (act *actions) measure(hpa *autoscalingv2.HorizontalPodAutoscaler, obs observed, now time.Time) bool {
	wanted, metric, err := act.compute(hpa, obs, now)
	act.Failed = err
	if wanted < 0 {
		act.say(event.Warning(hpa, "FailedComputeMetricsReplicas", "%s", err))
		return false
	}
	current := act.From
	switch {
	case wanted > current:
		act.Reason = metric + " above target"
	case wanted < current:
		act.Reason = "All metrics below target"
	}
	behavior := hpa.Spec.Behavior
	stable := steady(behavior, act.History, current, wanted, now)
	act.History.recommended = append(act.History.recommended, entry{wanted, now})
	if stable.replicas != wanted {
		act.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, stable.reason, stable.message, now)
	} else {
		act.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "recommended size matches current size", now)
	}
	got := limit(behavior, act.History, bounds{least(hpa), hpa.Spec.MaxReplicas}, current, stable.replicas, now)
	how := corev1.ConditionFalse
	if got.replicas != stable.replicas {
		how = corev1.ConditionTrue
	}
	act.set(autoscalingv2.ScalingLimited, how, got.reason, got.message, now)
	act.To = got.replicas
	if current == 0 && wasScaledToZero(hpa) && act.To < least(hpa) {
		act.To = least(hpa)
		if act.Reason == "" {
			act.Reason = "Current number of replicas below Spec.MinReplicas"
		}
	}
	return true
}

// compute returns the largest number of replicas that a metric asks for, and that metric; a negative number where no metric can be trusted,
// or one that cannot be read might ask for more.
func (act *actions) compute(hpa *autoscalingv2.HorizontalPodAutoscaler, obs observed, now time.Time) (replicas int32, metric string, err error) {
	if err := act.check(hpa, obs, now); err != nil {
		return -1, "", err
	}
	act.Status.CurrentMetrics = make([]autoscalingv2.MetricStatus, len(hpa.Spec.Metrics))
	var failed *failure
	bad := 0
	for i, m := range hpa.Spec.Metrics {
		p, err := propose(hpa, m, obs, i, now)
		if err != nil {
			bad++
			act.Computed = append(act.Computed, computation{i, m.Type, none, err})
			act.say(event.Warning(hpa, err.reason, "%s", err.cause))
			if failed == nil {
				failed = err
			}
			continue
		}
		act.Computed = append(act.Computed, computation{i, m.Type, direction(act.From, p.replicas), nil})
		act.Status.CurrentMetrics[i] = p.status
		if replicas == 0 || p.replicas > replicas {
			replicas, metric = p.replicas, p.metric
		}
	}
	if failed != nil {
		err = fmt.Errorf("invalid metrics (%d invalid out of %d), first error is: %w", bad, len(hpa.Spec.Metrics), failed)
	}
	if bad >= len(hpa.Spec.Metrics) || bad > 0 && replicas < act.From {
		if failed != nil {
			act.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, failed.reason, fmt.Sprintf("the HPA was unable to compute the replica count: %v", failed.cause), now)
		}
		return -1, "", err
	}
	act.set(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from "+metric, now)
	return replicas, metric, err
}

// check makes sure that the scale selects pods that no other autoscaler has.
func (act *actions) check(hpa *autoscalingv2.HorizontalPodAutoscaler, obs observed, now time.Time) error {
	_, err := selectorOf(obs.scale)
	reason, message := "InvalidSelector", "the HPA target's scale is missing a selector"
	switch {
	case errors.Is(err, errNoSelector):
		act.say(event.Warning(hpa, "SelectorRequired", "%s", err))
	case err != nil:
		message = err.Error()
		act.say(event.Warning(hpa, reason, "%s", err))
	case len(obs.rivals) > 1:
		err = fmt.Errorf("pods by selector %v are controlled by more than one HPA (e.g. %v)", obs.scale.Status.Selector, obs.rivals)
		reason, message = "AmbiguousSelector", err.Error()
		act.say(event.Warning(hpa, reason, "%s", err))
	default:
		return nil
	}
	act.set(autoscalingv2.ScalingActive, corev1.ConditionFalse, reason, message, now)
	return err
}

// finish completes act once the target was scaled, or could not be because of err.
func (act *actions) finish(hpa *autoscalingv2.HorizontalPodAutoscaler, err error, now time.Time) {
	if err != nil {
		act.say(event.Warning(hpa, "FailedRescale", "New size: %d; reason: %s; error: %v", act.To, act.Reason, err))
		act.set(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", fmt.Sprintf("the HPA controller was unable to update the target scale: %v", err), now)
		act.Status.DesiredReplicas = hpa.Status.DesiredReplicas
		act.Failed = err
		return
	}
	act.set(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", fmt.Sprintf("the HPA controller was able to update the target scale to %d", act.To), now)
	act.say(event.Normal(hpa, "SuccessfulRescale", "New size: %d; reason: %s", act.To, act.Reason))
	act.History = act.History.changed(act.From, act.To, now)
	act.Status.LastScaleTime = ptr.To(metav1.NewTime(now))
	if act.From > 0 && act.To == 0 && least(hpa) == 0 && seesWithoutPods(hpa) {
		act.set(autoscalingv2.ScaledToZero, corev1.ConditionTrue, "ScaledToZero", "the HPA controller scaled the workload to zero", now)
	} else {
		act.set(autoscalingv2.ScaledToZero, corev1.ConditionFalse, "NotScaledToZero", "the HPA controller did not scale the workload to zero", now)
	}
}
