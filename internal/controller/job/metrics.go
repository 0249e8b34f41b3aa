package job

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// Metrics are the figures of the Job controller, under the names and labels that kube-controller-manager gives them
// (https://kubernetes.io/docs/reference/instrumentation/metrics/). They outlive the controller, as a server may lead more than once.
type Metrics struct {
	syncs, finished, pods, indexes, policy, created, finalizers, external *prometheus.CounterVec
	took                                                                  *prometheus.HistogramVec
}

// NewMetrics returns Metrics that reg shows; a nil reg shows them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Subsystem: "job_controller", Name: name, Help: help}, labels)
	}
	step := []string{"completion_mode", "result", "action"}
	m := &Metrics{
		syncs:      counter("job_syncs_total", "Steps that were taken for Jobs.", step...),
		finished:   counter("jobs_finished_total", "Jobs that have finished.", "completion_mode", "result", "reason"),
		pods:       counter("job_pods_finished_total", "Pods that have ended and are counted.", "completion_mode", "result"),
		indexes:    counter("job_finished_indexes_total", "Indexes that have succeeded or failed for good.", "status", "backoffLimit"),
		policy:     counter("pod_failures_handled_by_failure_policy_total", "Failed pods for which a rule of a failure policy had an action.", "action"),
		created:    counter("job_pods_creation_total", "Pods that were made, and those that could not be.", "reason", "status"),
		finalizers: counter("terminated_pods_tracking_finalizer_total", "Pods that ended with the finalizer by which they are counted, and those that lost it since.", "event"),
		external:   counter("jobs_by_external_controller_total", "Jobs that another controller manages.", "controller_name"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Subsystem: "job_controller", Name: "job_sync_duration_seconds",
			Help: "How long a step for a Job took.", Buckets: prometheus.ExponentialBuckets(0.004, 2, 15)}, step),
	}
	if reg != nil {
		reg.MustRegister(m.syncs, m.finished, m.pods, m.indexes, m.policy, m.created, m.finalizers, m.external, m.took)
	}
	return m
}

// stepped notes a step for a job, what it did and how long it took.
func (m *Metrics) stepped(job *batchv1.Job, did actions, err error, took time.Duration) {
	result, action := "success", "tracking"
	switch {
	case len(did.Create) > 0:
		action = "pods_created"
	case len(did.Delete) > 0:
		action = "pods_deleted"
	}
	if err != nil {
		result = "error"
	}
	m.syncs.WithLabelValues(mode(job), result, action).Inc()
	m.took.WithLabelValues(mode(job), result, action).Observe(took.Seconds())
}

// mode returns the completion mode of a job.
func mode(job *batchv1.Job) string {
	return string(ptr.Deref(job.Spec.CompletionMode, batchv1.NonIndexedCompletion))
}

// ended notes that a job has finished.
func (m *Metrics) ended(job *batchv1.Job, final *batchv1.JobCondition) {
	result := "failed"
	if final.Type == batchv1.JobComplete {
		result = "succeeded"
	}
	m.finished.WithLabelValues(mode(job), result, final.Reason).Inc()
}

// counted notes what a status counts that the one before it did not.
func (m *Metrics) counted(job *batchv1.Job, next *batchv1.JobStatus) {
	add(m.pods.WithLabelValues(mode(job), "succeeded"), int(next.Succeeded-job.Status.Succeeded))
	add(m.pods.WithLabelValues(mode(job), "failed"), int(next.Failed-job.Status.Failed))
	if !indexed(job) {
		return
	}
	limit := "global"
	if perIndex(job) {
		limit = "perIndex"
		was := parseIndexes(ptr.Deref(job.Status.FailedIndexes, ""), int(*job.Spec.Completions)).total()
		add(m.indexes.WithLabelValues("failed", limit), parseIndexes(ptr.Deref(next.FailedIndexes, ""), int(*job.Spec.Completions)).total()-was)
	}
	add(m.indexes.WithLabelValues("succeeded", limit), int(next.Succeeded-job.Status.Succeeded))
}

func add(c prometheus.Counter, n int) {
	if n > 0 { // counters never fall
		c.Add(float64(n))
	}
}

// judged notes the failed pods for which the failure policy had an action.
func (m *Metrics) judged(actions map[batchv1.PodFailurePolicyAction]int) {
	for action, n := range actions {
		m.policy.WithLabelValues(string(action)).Add(float64(n))
	}
}

// made notes how many of wanted pods were made of a job, which had as many pods before and after.
func (m *Metrics) made(job *batchv1.Job, wanted, before, after int) {
	reason := "new"
	switch lost := job.Status.Failed > 0; {
	case lost && waitsForEnd(job):
		reason = "recreate_failed"
	case lost || ptr.Deref(job.Status.Terminating, 0) > 0:
		reason = "recreate_terminating_or_failed"
	}
	succeeded := min(max(after-before, 0), wanted)
	add(m.created.WithLabelValues(reason, "succeeded"), succeeded)
	add(m.created.WithLabelValues(reason, "failed"), wanted-succeeded)
}

// changed notes changes of pods that have ended, or lost the finalizer by which they are counted.
func (m *Metrics) changed(e client.Event) {
	pod := e.Object.(*corev1.Pod)
	waits := func(p *corev1.Pod) bool { return tracked(p) && podstate.Finished(p) }
	was := false
	if e.Old != nil {
		was = waits(e.Old.(*corev1.Pod))
	}
	switch is := e.Type != client.Deleted && waits(pod); {
	case is && !was:
		m.finalizers.WithLabelValues("add").Inc()
	case was && !is:
		m.finalizers.WithLabelValues("delete").Inc()
	}
}

// added notes a new Job that another controller manages.
func (m *Metrics) added(e client.Event) {
	if job := e.Object.(*batchv1.Job); e.Type == client.Added && !managed(job) {
		m.external.WithLabelValues(*job.Spec.ManagedBy).Inc()
	}
}
