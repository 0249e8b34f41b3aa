package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// failed reports whether the job takes a pod as failed: it has ended so, or it is being deleted and the job does not wait for what becomes
// of it (podReplacementPolicy TerminatingOrFailed).
func failed(job *batchv1.Job, pod *corev1.Pod) bool {
	switch pod.Status.Phase {
	case corev1.PodFailed:
		return true
	case corev1.PodSucceeded:
		return false
	}
	return pod.DeletionTimestamp != nil && !waitsForEnd(job)
}

// waitsForEnd reports whether pods that are being deleted are replaced only once they have ended.
func waitsForEnd(job *batchv1.Job) bool {
	return job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed
}

// verdict is what the failure policy says of a failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // "" where no rule matches
	message string                         // why the job fails, for the action FailJob
}

// counts reports whether the failure counts towards the limits.
func (v verdict) counts() bool { return v.action != batchv1.PodFailurePolicyActionIgnore }

// judge finds the first rule of the job's failure policy that matches a failed pod.
func judge(job *batchv1.Job, pod *corev1.Pod) verdict {
	if job.Spec.PodFailurePolicy == nil {
		return verdict{}
	}
	for i, rule := range job.Spec.PodFailurePolicy.Rules {
		var what string
		switch {
		case rule.OnExitCodes != nil:
			c := exited(pod, rule.OnExitCodes)
			if c == nil {
				continue
			}
			what = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d", c.Name, pod.Namespace, pod.Name, c.State.Terminated.ExitCode)
		case rule.OnPodConditions != nil:
			condition := conditionOf(pod, rule.OnPodConditions)
			if condition == "" {
				continue
			}
			what = fmt.Sprintf("Pod %s/%s has condition %s", pod.Namespace, pod.Name, condition)
		default:
			continue
		}
		v := verdict{action: rule.Action}
		if rule.Action == batchv1.PodFailurePolicyActionFailJob {
			v.message = fmt.Sprintf("%s matching %s rule at index %d", what, rule.Action, i)
		}
		return v
	}
	return verdict{}
}

// exited returns the first container of the pod that ended with a code that the rule asks for.
func exited(pod *corev1.Pod, rule *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			s := &statuses[i]
			if s.State.Terminated == nil || s.State.Terminated.ExitCode == 0 || rule.ContainerName != nil && *rule.ContainerName != s.Name {
				continue
			}
			listed := slices.Contains(rule.Values, s.State.Terminated.ExitCode)
			switch {
			case rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && listed,
				rule.Operator == batchv1.PodFailurePolicyOnExitCodesOpNotIn && !listed:
				return s
			}
		}
	}
	return nil
}

// conditionOf returns the first condition of the pod that one of the patterns asks for, or nothing.
func conditionOf(pod *corev1.Pod, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) corev1.PodConditionType {
	for _, c := range pod.Status.Conditions {
		for _, p := range patterns {
			if c.Type == p.Type && c.Status == p.Status {
				return c.Type
			}
		}
	}
	return ""
}

// succeeds returns the message of the first rule of a success policy that the succeeded indexes fulfil, or nothing (KEP-3998).
func succeeds(policy *batchv1.SuccessPolicy, completions int, succeeded indexes) string {
	if policy == nil || len(succeeded) == 0 {
		return ""
	}
	for i, rule := range policy.Rules {
		count := succeeded.total()
		if rule.SucceededIndexes != nil {
			wanted := parseIndexes(*rule.SucceededIndexes, completions)
			if len(wanted) == 0 {
				continue
			}
			count = succeeded.common(wanted)
			if count == wanted.total() {
				return fmt.Sprintf("Matched rules at index %d", i)
			}
		}
		if rule.SucceededCount != nil && count >= int(*rule.SucceededCount) {
			return fmt.Sprintf("Matched rules at index %d", i)
		}
	}
	return ""
}
