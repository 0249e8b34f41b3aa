package pod

import (
	"bytes"
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// effective returns the pod with the newest status known: what this agent reported last, with the conditions of others as the API has
// them. w.mu must be held.
func (w *Worker) effective() *corev1.Pod { return w.share.granted.apply(w.newest()) }

func (w *Worker) newest() *corev1.Pod {
	if w.reported == nil || w.reported == &w.pod.Status || w.pod.Status.Phase == corev1.PodFailed || w.pod.Status.Phase == corev1.PodSucceeded {
		return w.pod
	}
	pod := *w.pod
	pod.Status = merged(w.reported, &w.pod.Status)
	return &pod
}

// merged returns ours with the conditions and fields that others own taken from theirs.
func merged(ours, theirs *corev1.PodStatus) corev1.PodStatus {
	out := *ours
	out.NominatedNodeName, out.Resize, out.ResourceClaimStatuses = theirs.NominatedNodeName, theirs.Resize, theirs.ResourceClaimStatuses
	if sameOthers(ours.Conditions, theirs.Conditions) {
		return out
	}
	out.Conditions = make([]corev1.PodCondition, 0, len(ours.Conditions))
	for _, c := range ours.Conditions {
		if lifecycle.Owned(c.Type) {
			out.Conditions = append(out.Conditions, c)
		}
	}
	for _, c := range theirs.Conditions {
		if !lifecycle.Owned(c.Type) {
			out.Conditions = append(out.Conditions, c)
		}
	}
	return out
}

// sameOthers reports whether ours ends with the very conditions that theirs has from others: nothing is to be merged then.
func sameOthers(ours, theirs []corev1.PodCondition) bool {
	n := 0
	for n < len(ours) && lifecycle.Owned(ours[n].Type) {
		n++
	}
	for i := range theirs {
		if lifecycle.Owned(theirs[i].Type) {
			continue
		}
		if n == len(ours) || ours[n] != theirs[i] {
			return false
		}
		n++
	}
	return n == len(ours)
}

// statusDiffers reports whether the API's status is not the one last computed. w.mu must be held.
func (w *Worker) statusDiffers() bool {
	if w.reported == nil || w.reported == &w.pod.Status {
		return false
	}
	want := merged(w.reported, &w.pod.Status)
	return !sameStatus(&want, &w.pod.Status)
}

// sameStatus compares the stored forms: that costs a tenth of a comparison by reflection, and tells what a write would change.
func sameStatus(a, b *corev1.PodStatus) bool {
	size := a.Size()
	if size != b.Size() {
		return false
	}
	var buffer [4096]byte // most statuses fit, and need no memory
	x := buffer[:]
	if 2*size > len(x) {
		x = make([]byte, 2*size)
	}
	if _, err := a.MarshalToSizedBuffer(x[:size]); err != nil {
		return false
	}
	_, err := b.MarshalToSizedBuffer(x[size : 2*size])
	return err == nil && bytes.Equal(x[:size], x[size:2*size])
}

// StatusObject returns the pod with its new status and the computed one that is in it, or nil where nothing is to be written.
func (w *Worker) StatusObject() (*corev1.Pod, *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem.Gone || !w.statusDiffers() {
		return nil, nil
	}
	// The front door takes the spec from its own copy and completes the status in place: it gets none of the former and a copy of the
	// latter, because ours are being read.
	pod := &corev1.Pod{TypeMeta: w.pod.TypeMeta, ObjectMeta: w.pod.ObjectMeta}
	status := merged(w.reported, &w.pod.Status)
	status.DeepCopyInto(&pod.Status)
	return pod, w.reported
}

// dropCopy keeps the API's copy of the status last reported in the place of an equal one of our own: most pods' statuses stay for long. w.mu must
// be held.
func (w *Worker) dropCopy() {
	if w.reported != nil && !w.statusDiffers() {
		w.reported = &w.pod.Status
	}
}

// Written notes the outcome of a status write: the pod as stored, with the status that was reported, or nil where nothing is left to write. The end of a
// pod waits for it.
func (w *Worker) Written(pod *corev1.Pod, reported *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pod != nil && pod.UID == w.uid && newer(pod.ResourceVersion, w.pod.ResourceVersion) {
		w.pod = pod
	}
	if reported != nil && w.reported == reported {
		w.dropCopy()
	}
	if w.end.finishing {
		w.notifyLocked()
	}
}

// Refresh reads the pod anew after a conflict.
func (w *Worker) Refresh(ctx context.Context) {
	pod, err := client.Get[*corev1.Pod](ctx, w.host.Client, w.key)
	switch {
	case apierrors.IsNotFound(err) || err == nil && pod.UID != w.uid:
		w.gone()
	case err == nil:
		w.setPod(pod)
	}
}
