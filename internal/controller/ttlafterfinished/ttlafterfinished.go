// Package ttlafterfinished deletes Jobs some time after they have finished, as their ttlSecondsAfterFinished says (KEP-592).
//
// What flows through it: Jobs; one that has finished waits for its time, which its condition and the clock give. What must stay true: a Job
// is deleted together with its pods, and only if it is the one that was looked at. Tests: TestFinishedJobsAreDeletedInTime.
package ttlafterfinished

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// New declares the controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name:       "ttl-after-finished",
		Watches:    []controller.Watch{{Resource: api.Jobs}},
		Writes:     []controller.Write{controller.Deletes(api.Jobs)},
		Reconciler: &reconciler{c},
	}
}

type reconciler struct{ client client.Client }

// Reconcile deletes one Job, or comes back when it is time.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	job, err := client.Get[*batchv1.Job](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	at := expiry(job)
	if at.IsZero() || job.DeletionTimestamp != nil {
		return 0, nil
	}
	if left := time.Until(at); left > 0 {
		return left, nil
	}
	err = client.Delete[*batchv1.Job](ctx, r.client, key, metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationForeground), Preconditions: &metav1.Preconditions{UID: &job.UID}})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// expiry returns when a job is to be deleted; the zero time if that is never or not known yet.
func expiry(job *batchv1.Job) time.Time {
	if job.Spec.TTLSecondsAfterFinished == nil {
		return time.Time{}
	}
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
			return c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second)
		}
	}
	return time.Time{}
}
