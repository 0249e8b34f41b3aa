package job

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// NewOrphans declares the controller that takes the finalizer off pods that no Job is going to count. Its keys are the UIDs of Jobs, and
// api.NoJob for pods without a controller.
func NewOrphans(c client.Client) controller.Controller {
	return controller.Controller{
		Name: "job-orphans",
		Watches: []controller.Watch{
			{Resource: api.Jobs, Keys: endedJobs},
			{Resource: api.Pods, Keys: uncountedPods},
		},
		Writes:     []controller.Write{controller.Sets(api.Pods, "metadata", "finalizers", batchv1.JobTrackingFinalizer).Of("of Jobs that are gone or have finished")},
		Reconciler: &orphans{c},
	}
}

// endedJobs returns the UID of a Job that is gone or has finished.
func endedJobs(e client.Event) []api.Key {
	if j := e.Object.(*batchv1.Job); e.Type == client.Deleted || finished(j) {
		return []api.Key{{Namespace: j.Namespace, Name: string(j.UID)}}
	}
	return nil
}

// uncountedPods returns whose pod one is that has ended or is being deleted, or that nobody controls.
func uncountedPods(e client.Event) []api.Key {
	pod := e.Object.(*corev1.Pod)
	ref := metav1.GetControllerOfNoCopy(pod)
	switch {
	case e.Type == client.Deleted || !tracked(pod):
		return nil
	case ref == nil:
		return []api.Key{{Namespace: pod.Namespace, Name: api.NoJob}}
	case ref.Kind == "Job" && !podstate.Active(pod):
		return []api.Key{{Namespace: pod.Namespace, Name: string(ref.UID)}}
	}
	return nil
}

type orphans struct{ client client.Client }

// Reconcile removes the finalizer of all pods of one Job, if that counts none any longer.
func (o *orphans) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	pods, err := client.List[*corev1.Pod](ctx, o.client, client.ListOptions{Namespace: key.Namespace, Index: client.IndexJob, Value: key.Name})
	if err != nil || len(pods) == 0 {
		return 0, err
	}
	if ref := metav1.GetControllerOfNoCopy(pods[0]); ref != nil {
		job, err := client.Get[*batchv1.Job](ctx, o.client, api.Key{Namespace: key.Namespace, Name: ref.Name})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
		if err == nil && job.UID == ref.UID && (!finished(job) || !managed(job)) {
			return 0, nil
		}
	}
	_, err = untrack(ctx, o.client, pods)
	return 0, err
}
