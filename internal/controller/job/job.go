// Package job runs pods to completion, as Jobs ask for it.
//
// What flows through it: a Job and the pods that it has not done with are read (an index holds these, so that a step costs what has
// changed and what runs, not what has ended); [plan] says which pods to make and delete, why the Job ends, what its status is, and which
// pods are counted with that; the writes follow in the order of KEP-2307. [NewOrphans] takes the finalizer off pods whose Job is gone
// or has finished.
//
// What must stay true: planning is a pure function of what was read; a restart between any two writes counts no pod twice and none
// never (TestRestartBetweenAnyTwoWrites); a status is written only over the one that it was planned from; the memory of failures, by
// which new pods wait, is found again in the pods that failed (TestBackOffSurvivesARestart).
package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

const (
	component = "job-controller"
	// workers is how many Jobs are looked at at the same time: most of a look is waiting for writes, which share transactions when they come together.
	workers = 32
	// A Job with at least largeActive running pods is looked at every largePace at most: each look reads all of these, and there are a
	// few changes of each.
	largeActive = 100
	largePace   = 100 * time.Millisecond
	// soon is when to come back for what one step left over.
	soon = time.Millisecond
)

type reconciler struct {
	client  client.Client
	pods    *workload.Pods
	pace    *pace.Pace
	metrics *Metrics

	mu       sync.Mutex
	backoffs map[api.Key]memory // a convenience: what is not here is found in the pods
}

// memory is how pods of the Job with a UID have failed.
type memory struct {
	uid types.UID
	backoff
}

// New declares the Job controller. m are its figures; nil where nobody asks for them.
func New(c client.Client, m *Metrics) controller.Controller {
	if m == nil {
		m = NewMetrics(nil)
	}
	kind := batchv1.SchemeGroupVersion.WithKind("Job")
	owners := workload.NewOwners(kind.GroupKind(), func(o api.Object) *metav1.LabelSelector { return o.(*batchv1.Job).Spec.Selector })
	return controller.Controller{
		Name:    "job",
		Workers: workers,
		Watches: []controller.Watch{
			{Resource: api.Jobs, Keys: func(e client.Event) []api.Key { m.added(e); return owners.OwnerKeys(e) }},
			{Resource: api.Pods, Keys: func(e client.Event) []api.Key { m.changed(e); return owners.OwnedKeys(e) }},
		},
		Writes: []controller.Write{
			controller.Sets(api.Jobs, "status"),
			controller.Creates(api.Pods).Of("of Jobs"),
			controller.Deletes(api.Pods).Of("of Jobs"),
			controller.Sets(api.Pods, "metadata", "ownerReferences").Of("of Jobs"),
			controller.Sets(api.Pods, "metadata", "finalizers", batchv1.JobTrackingFinalizer).Of("of Jobs that go on"),
		},
		Reconciler: &reconciler{
			client: c, pace: pace.New(largePace), metrics: m, backoffs: map[api.Key]memory{},
			pods: &workload.Pods{Client: c, Kind: kind, Component: component, Owners: owners, Index: client.IndexJob, Finalizer: batchv1.JobTrackingFinalizer},
		},
	}
}

// Reconcile takes the next step for one Job.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	// The Job is read before its pods: a status that was planned from older pods would count some of them twice.
	job, err := client.Get[*batchv1.Job](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.forget(key)
		r.pods.Owners.Again(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if finished(job) || !managed(job) {
		r.forget(key)
		return 0, nil
	}
	if wait := r.pace.Wait(key, time.Now()); wait > 0 && job.Status.Active >= largeActive {
		return wait, nil
	}
	obs, err := r.observe(ctx, job)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	act := plan(job, obs, began)
	did := act
	after, err := r.step(ctx, job, obs, act)
	r.metrics.stepped(job, did, err, time.Since(began))
	return after, err
}

// step does what act says, which was planned from obs, and says when there is to be another look.
func (r *reconciler) step(ctx context.Context, job *batchv1.Job, obs observed, act actions) (time.Duration, error) {
	var manageErr error
	if len(act.Create)+len(act.Delete) > 0 {
		manageErr = r.manage(ctx, job, act)
		// Count what is there now rather than wait to be told of our own writes.
		pods, err := r.list(ctx, job)
		if err != nil {
			return 0, err
		}
		if len(act.Create) > 0 {
			r.metrics.made(job, len(act.Create), len(obs.pods), len(pods))
		}
		after := act.After
		obs.pods, obs.ending = pods, act.Ending
		if act.Ending != nil {
			obs.stopped = uids(act.Delete)
		}
		act = plan(job, obs, time.Now())
		act.After = soonest(act.After, after)
	}
	r.pace.Wrote(api.KeyOf(job), time.Now())
	if err := errors.Join(r.track(ctx, job, act), manageErr); err != nil {
		return 0, err
	}
	if act.More || len(act.Create)+len(act.Delete) > 0 {
		return soon, nil
	}
	return act.After, nil
}

// observe claims the pods that are job's, and reads them.
func (r *reconciler) observe(ctx context.Context, job *batchv1.Job) (observed, error) {
	selector, err := metav1.LabelSelectorAsSelector(job.Spec.Selector)
	if err != nil {
		return observed{}, fmt.Errorf("reading the selector of Job %s: %w", api.KeyOf(job), err)
	}
	pods, err := r.pods.Of(ctx, job, selector)
	if err != nil {
		return observed{}, err
	}
	mine, adopt, release := ownership.Sort(job, selector, pods)
	adopted, err := r.pods.Claim(ctx, job, adopt, release)
	if err != nil {
		return observed{}, err
	}
	obs := observed{pods: append(mine, adopted...)}
	obs.backoff, err = r.remember(ctx, job)
	return obs, err
}

func uids(pods []*corev1.Pod) map[types.UID]bool {
	out := map[types.UID]bool{}
	for _, p := range pods {
		out[p.UID] = true
	}
	return out
}

// list reads the pods of job again.
func (r *reconciler) list(ctx context.Context, job *batchv1.Job) ([]*corev1.Pod, error) {
	return client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Namespace: job.Namespace, Index: client.IndexJob, Value: string(job.UID)})
}

// remember returns how the pods of job have failed that are counted: from memory or, after a restart, from the pods.
func (r *reconciler) remember(ctx context.Context, job *batchv1.Job) (backoff, error) {
	r.mu.Lock()
	m, ok := r.backoffs[api.KeyOf(job)]
	r.mu.Unlock()
	if ok && m.uid == job.UID {
		return m.backoff, nil
	}
	if job.Status.StartTime == nil {
		return backoff{}, nil
	}
	all, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Namespace: job.Namespace, Index: client.IndexOwner, Value: string(job.UID)})
	if err != nil {
		return backoff{}, err
	}
	var succeeded, failed []*corev1.Pod
	for _, p := range all {
		switch {
		case tracked(p) || !podstate.Finished(p):
		case p.Status.Phase == corev1.PodSucceeded:
			succeeded = append(succeeded, p)
		default:
			failed = append(failed, p)
		}
	}
	b := backoff{}.with(succeeded, failed)
	r.keep(job, b)
	return b, nil
}

func (r *reconciler) keep(job *batchv1.Job, b backoff) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backoffs[api.KeyOf(job)] = memory{job.UID, b}
}

func (r *reconciler) forget(key api.Key) {
	r.pace.Forget(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.backoffs, key)
}

// report writes events about job.
func (r *reconciler) report(ctx context.Context, events ...event.Event) {
	event.Write(ctx, r.client, component, time.Now(), events...)
}
