package pod

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/task"
)

// finish ends the pod in the API once its last status is written there, or the worker if the API no longer has the pod. w.mu must be held.
func (w *Worker) finish(pod *corev1.Pod) {
	if w.mem.Gone {
		w.host.Tasks.Go(func() { w.set.forget(w) })
		return
	}
	w.end.finishing = true
	if w.end.asked || pod.DeletionTimestamp == nil || w.statusDiffers() || w.work.busy.Teardown {
		return
	}
	w.begin(w.host.Tasks.Context(), &w.work.busy.Teardown, func(ctx context.Context) {
		var zero int64
		err := client.Delete[*corev1.Pod](ctx, w.host.Client, w.key, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &w.uid}})
		switch {
		case err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			// The watch says when it is gone; with finalizers it stays until others are done.
			w.deleted(err)
		case ctx.Err() == nil:
			w.host.Log.Warn("removing an ended pod from the API failed, trying again", "pod", w.key, "err", err)
			task.Pause(ctx, time.Second)
		}
	})
}

// deleted notes that the API was asked to remove the pod.
func (w *Worker) deleted(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end.asked = true
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		w.mem.Gone = true
	}
}
