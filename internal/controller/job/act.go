package job

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// manage deletes or creates the pods of act.
func (r *reconciler) manage(ctx context.Context, job *batchv1.Job, act actions) error {
	if len(act.Delete) > 0 {
		doomed := act.Delete
		if act.Uncounted {
			if _, err := untrack(ctx, r.client, doomed); err != nil {
				return err
			}
		}
		return r.pods.Delete(ctx, job, doomed)
	}
	pods := make([]*corev1.Pod, len(act.Create))
	for i, s := range act.Create {
		pods[i] = newPod(job, s)
	}
	return r.pods.Create(ctx, job, pods)
}

// track writes the status of act, removes the finalizers of the pods that it counts, and writes the status that follows.
func (r *reconciler) track(ctx context.Context, job *batchv1.Job, act actions) error {
	if len(act.Untrack) == 0 { // nothing happens between the two
		return r.settle(ctx, job, act, act.Status, nil)
	}
	job, err := r.writeStatus(ctx, job, act.Status)
	if err != nil {
		return err
	}
	r.keep(job, act.Backoff)
	r.metrics.judged(act.Judged)
	r.report(ctx, act.Events...)
	act.Events = nil
	left, failed := untrack(ctx, r.client, act.Untrack)
	return cmp.Or(r.settle(ctx, job, act, job.Status, left), failed)
}

// settle writes the status after which nothing is left to be done in this step. left are the pods whose finalizer could not be removed.
func (r *reconciler) settle(ctx context.Context, job *batchv1.Job, act actions, status batchv1.JobStatus, left map[types.UID]bool) error {
	status, ended := settledStatus(act, status, left)
	if _, err := r.writeStatus(ctx, job, status); err != nil {
		return err
	}
	events := act.Events
	if ended {
		r.metrics.ended(job, act.Final)
	}
	if ended && act.Final.Type == batchv1.JobComplete {
		if n := job.Spec.Completions; n != nil && status.Succeeded > *n {
			events = append(events, event.Warning(job, "TooManySucceededPods", "Too many succeeded pods running after completion count reached"))
		}
		events = append(events, event.Normal(job, "Completed", "Job completed"))
	} else if ended {
		events = append(events, event.Warning(job, act.Final.Reason, "%s", act.Final.Message))
	}
	r.report(ctx, events...)
	return nil
}

// writeStatus stores a status that was planned from job as it is; if job has changed since, that is a conflict.
func (r *reconciler) writeStatus(ctx context.Context, job *batchv1.Job, status batchv1.JobStatus) (*batchv1.Job, error) {
	if apiequality.Semantic.DeepEqual(job.Status, status) {
		return job, nil
	}
	next := job.DeepCopy()
	next.Status = status
	stored, err := r.client.Update(ctx, next, "status")
	if err != nil {
		return job, fmt.Errorf("writing the status of Job %s: %w", api.KeyOf(job), err)
	}
	r.metrics.counted(job, &status)
	return stored.(*batchv1.Job), nil
}

// untrack removes from pods the finalizer by which they are counted, unless another takes a pod over meanwhile. left are those that still have it, and err why the first of them does.
func untrack(ctx context.Context, c client.Client, pods []*corev1.Pod) (left map[types.UID]bool, err error) {
	var objs []api.Object
	for _, p := range pods {
		if tracked(p) {
			objs = append(objs, withoutFinalizer(p))
		}
	}
	left = map[types.UID]bool{}
	for i, res := range c.UpdateMany(ctx, objs, "") {
		failed := res.Err
		if apierrors.IsConflict(failed) { // the pod's node has reported something meanwhile
			_, failed = client.Mutate(ctx, c, api.KeyOf(objs[i]), "", func(p *corev1.Pod) bool {
				if p.UID != objs[i].GetUID() || !tracked(p) || controllerOf(p) != controllerOf(objs[i]) {
					return false
				}
				p.Finalizers = withoutFinalizer(p).Finalizers
				return true
			})
		}
		if failed != nil && !apierrors.IsNotFound(failed) {
			left[objs[i].GetUID()] = true
			if err == nil {
				err = fmt.Errorf("removing the finalizer of pod %s: %w", api.KeyOf(objs[i]), failed)
			}
		}
	}
	return left, err
}

// controllerOf returns the UID of what controls an object, or nothing.
func controllerOf(o metav1.Object) types.UID {
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		return ref.UID
	}
	return ""
}

func withoutFinalizer(pod *corev1.Pod) *corev1.Pod {
	p := pod.DeepCopy()
	p.Finalizers = slices.DeleteFunc(p.Finalizers, func(f string) bool { return f == batchv1.JobTrackingFinalizer })
	return p
}
