// Package cronjob makes Jobs by the schedules of CronJobs.
//
// What flows through it: a CronJob and the Jobs that it controls are read; [plan] says what became of the Jobs, which ended ones are
// beyond the limits of history, whether a Job is due, and when to look again. The Job is made first and the status written then; a Job's
// name is its CronJob's and the minute that it is scheduled for, so that a restart in between makes no second one.
//
// What must stay true: planning is a pure function of what was read and the time; a schedule or time zone that cannot be read costs
// an event when the CronJob changes and nothing else (TestWhatCannotBeReadIsReportedOnce); however long nobody looked, at most one Job
// is made for the times that were missed (TestMissedTimes).
package cronjob

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/ownership"
)

const (
	component = "cronjob-controller"
	// workers is how many CronJobs are looked at at the same time: many are due in the same second, and most of a look is waiting for writes, which
	// share transactions when they come together.
	workers = 32
)

// Metrics are the figures of the CronJob controller, under the name that kube-controller-manager gives them. They outlive the controller, as a
// server may lead more than once.
type Metrics struct{ skew prometheus.Histogram }

// NewMetrics returns Metrics that reg shows; a nil reg shows them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{skew: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "cronjob_controller_job_creation_skew_duration_seconds",
		Help: "How long after its time a Job was made.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)})}
	if reg != nil {
		reg.MustRegister(m.skew)
	}
	return m
}

type reconciler struct {
	client  client.Client
	metrics *Metrics

	mu    sync.Mutex
	known map[api.Key]schedule // a convenience: without it, times of a new schedule that had passed before it was set count
}

// schedule is what the CronJob with a UID asked for when it was looked at last, and since when.
type schedule struct {
	uid        types.UID
	text, zone string
	since      time.Time
}

// New declares the CronJob controller. m are its figures; nil where nobody asks for them.
func New(c client.Client, m *Metrics) controller.Controller {
	if m == nil {
		m = NewMetrics(nil)
	}
	kind := batchv1.SchemeGroupVersion.WithKind("CronJob").GroupKind()
	return controller.Controller{
		Name:    "cronjob",
		Workers: workers,
		Watches: []controller.Watch{
			{Resource: api.CronJobs},
			{Resource: api.Jobs, Keys: func(e client.Event) []api.Key {
				return ownership.EventKeys(e, kind, func(api.Object) []api.Key { return nil })
			}},
		},
		Writes:     []controller.Write{controller.Sets(api.CronJobs, "status"), controller.Creates(api.Jobs), controller.Deletes(api.Jobs)},
		Reconciler: &reconciler{client: c, metrics: m, known: map[api.Key]schedule{}},
	}
}

// Reconcile takes the next step for one CronJob.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	cj, err := client.Get[*batchv1.CronJob](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.known, key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	owned, err := client.List[*batchv1.Job](ctx, r.client, client.ListOptions{Namespace: cj.Namespace, Index: client.IndexOwner, Value: string(cj.UID)})
	if err != nil {
		return 0, err
	}
	var jobs []*batchv1.Job
	for _, j := range owned {
		if metav1.IsControlledBy(j, cj) {
			jobs = append(jobs, j)
		}
	}
	act := plan(cj, jobs, r.since(cj, time.Now()), time.Now())
	failed := r.act(ctx, cj, &act)
	event.Write(ctx, r.client, component, time.Now(), act.Events...)
	if err := r.writeStatus(ctx, cj, act.Status); err != nil {
		return 0, err
	}
	return act.After, failed
}

// since returns when cj got its present schedule; the zero time where it always had it, as far as is known.
func (r *reconciler) since(cj *batchv1.CronJob, now time.Time) time.Time {
	s := schedule{uid: cj.UID, text: cj.Spec.Schedule, zone: ptr.Deref(cj.Spec.TimeZone, "")}
	r.mu.Lock()
	defer r.mu.Unlock()
	if had, ok := r.known[api.KeyOf(cj)]; ok && had.uid == s.uid {
		s.since = had.since
		if had.text != s.text || had.zone != s.zone {
			s.since = now
		}
	}
	r.known[api.KeyOf(cj)] = s
	return s.since
}

// act deletes and creates the Jobs of act, and adds to its events and status what came of it.
func (r *reconciler) act(ctx context.Context, cj *batchv1.CronJob, act *actions) error {
	for _, j := range act.Forget {
		_ = r.remove(ctx, cj, j, act) // it is tried again with the next change
	}
	if act.Create == nil {
		return nil
	}
	for _, j := range act.Replace {
		if err := r.remove(ctx, cj, j, act); err != nil {
			return fmt.Errorf("replacing Job %s: %w", api.KeyOf(j), err)
		}
	}
	made, err := r.client.Create(ctx, act.Create)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case apierrors.IsAlreadyExists(err):
		made, err = r.client.Get(ctx, api.Jobs, api.KeyOf(act.Create))
		if err != nil || !metav1.IsControlledBy(made, cj) {
			return err
		}
	case err != nil:
		act.say(event.Warning(cj, "FailedCreate", "Error creating job: %v", err))
		return err
	default:
		r.metrics.skew.Observe(made.GetCreationTimestamp().Sub(act.Due).Seconds())
		act.say(event.Normal(cj, "SuccessfulCreate", "Created job %v", made.GetName()))
	}
	if !active(act.Status.Active, made.GetUID()) {
		act.Status.Active = append(act.Status.Active, event.Reference(made))
	}
	act.Status.LastScheduleTime = ptr.To(metav1.NewTime(act.Due))
	return nil
}

// remove deletes a Job and its pods.
func (r *reconciler) remove(ctx context.Context, cj *batchv1.CronJob, j *batchv1.Job, act *actions) error {
	err := client.Delete[*batchv1.Job](ctx, r.client, api.KeyOf(j), metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationBackground), Preconditions: &metav1.Preconditions{UID: &j.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		act.say(event.Warning(cj, "FailedDelete", "Deleted job: %v", err))
		return err
	}
	act.Status.Active = without(act.Status.Active, j.UID)
	act.say(event.Normal(cj, "SuccessfulDelete", "Deleted job %v", j.Name))
	return nil
}

// writeStatus stores a status that was planned from cj as it is; if cj has changed since, that is a conflict.
func (r *reconciler) writeStatus(ctx context.Context, cj *batchv1.CronJob, status batchv1.CronJobStatus) error {
	if apiequality.Semantic.DeepEqual(cj.Status, status) {
		return nil
	}
	next := cj.DeepCopy()
	next.Status = status
	if _, err := r.client.Update(ctx, next, "status"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing the status of CronJob %s: %w", api.KeyOf(cj), err)
	}
	return nil
}
