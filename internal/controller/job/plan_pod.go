package job

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/controller/workload"
)

const (
	// indexVariable is the environment variable that names the completion index.
	indexVariable = "JOB_COMPLETION_INDEX"
	// longestPrefix is how long a generated name is before its five random characters.
	longestPrefix = 58
)

// newPod returns the pod for one slot of job, with the finalizer by which it is counted.
func newPod(job *batchv1.Job, s slot) *corev1.Pod {
	pod := workload.NewPod(job, batchv1.SchemeGroupVersion.WithKind("Job"), &job.Spec.Template)
	if !slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer) {
		pod.Finalizers = append(pod.Finalizers, batchv1.JobTrackingFinalizer)
	}
	if s.index == noIndex {
		return pod
	}
	text := strconv.Itoa(s.index)
	pod.Annotations, pod.Labels = with(pod.Annotations, batchv1.JobCompletionIndexAnnotation, text), with(pod.Labels, batchv1.JobCompletionIndexAnnotation, text)
	pod.Spec.Hostname = fmt.Sprintf("%s-%d", job.Name, s.index)
	suffix := "-" + text + "-"
	pod.GenerateName = job.Name[:min(len(job.Name), longestPrefix-len(suffix))] + suffix
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			nameIndex(&containers[i])
		}
	}
	if perIndex(job) {
		countFailures(job, pod, s.replaces)
	}
	return pod
}

func with(m map[string]string, key, value string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	out[key] = value
	return out
}

// nameIndex gives a container the variable that names its pod's index, unless it has one of its own.
func nameIndex(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == indexVariable }) {
		return
	}
	path := fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)
	c.Env = append(c.Env, corev1.EnvVar{Name: indexVariable, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}})
}

// countFailures notes on pod how often its index has failed: once more than the pod that it replaces had noted.
func countFailures(job *batchv1.Job, pod, replaces *corev1.Pod) {
	counted, ignored := 0, 0
	if replaces != nil {
		counted, ignored = failureCounts(replaces)
		if judge(job, replaces).counts() {
			counted++
		} else {
			ignored++
		}
	}
	pod.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(counted)
	if ignored > 0 {
		pod.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(ignored)
	}
}

// failureCounts returns how often an index had failed when pod was made: failures that count, and ignored ones. Nonsense counts as 0.
func failureCounts(pod *corev1.Pod) (counted, ignored int) {
	read := func(annotation string) int {
		n, err := strconv.ParseInt(pod.Annotations[annotation], 10, 32)
		if err != nil || n < 0 {
			return 0
		}
		return int(n)
	}
	return read(batchv1.JobIndexFailureCountAnnotation), read(batchv1.JobIndexIgnoredFailureCountAnnotation)
}

// failures returns how often an index had failed when pod was made, without ignored failures.
func failures(pod *corev1.Pod) int32 {
	counted, _ := failureCounts(pod)
	return int32(counted)
}

// tries returns how often an index had failed in any way when pod was made.
func tries(pod *corev1.Pod) int {
	counted, ignored := failureCounts(pod)
	return counted + ignored
}
