package node

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// worker drives one pod. Its goroutine exists only while there is something to do; what takes long (pulling, starting, stopping) is
// done by further goroutines, at most one of each sort, which are noted in busy.
type worker struct {
	a   *Agent
	uid types.UID
	key api.Key

	mu  sync.Mutex
	pod *corev1.Pod // as the API has it
	// last is the status told last; nil before the first.
	last *corev1.PodStatus
	mem  lifecycle.Memory
	obs  *lifecycle.Observed // nil: look again
	// shown is the last look that succeeded, for figures.
	shown *lifecycle.Observed
	// looks counts invalidations, so that a look that was overtaken is not kept.
	looks int
	// known are the IDs of the pod's sandboxes; nil: ask the runtime. It is replaced, never changed.
	known    []string
	busy     lifecycle.Busy
	stops    map[string]context.CancelFunc // by container ID
	cancel   context.CancelFunc            // of the sandbox or start operation
	trackers map[string]*probe.Tracker     // by container ID
	messages map[string]string             // termination messages by container ID
	waiting  map[string]lifecycle.Waiting

	volumes map[string]volume.Mounted // nil before they were set up
	renew   time.Time                 // when they must be set up again
	refresh bool                      // a ConfigMap or Secret changed
	sandbox *cri.PodSandboxConfig
	parent  string // control group

	// granted is what the node has granted of processor and memory, where that is not what the pod asks for now; else nil.
	granted *grant

	admitted, finishing bool
	asked               bool // the API was asked to remove the pod

	running, pending bool
	wake             time.Time // when to look again
	timer            *time.Timer
	timerAt          time.Time
}

func newWorker(a *Agent, pod *corev1.Pod) *worker {
	return &worker{
		a: a, uid: pod.UID, key: api.KeyOf(pod), pod: pod,
		mem: lifecycle.Memory{StartTime: time.Now()},
	}
}

// UID implements sources.User.
func (w *worker) UID() types.UID { return w.uid }

// SourceChanged implements sources.User: the pod brings its volumes up to date if one of them shows that object.
func (w *worker) SourceChanged(kind, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !volume.Refers(w.pod, kind, name) {
		return
	}
	w.refresh = true
	w.mem.SandboxRetryAt = time.Time{} // what was missing may be there now
	w.notifyLocked()
}

// setPod takes the pod's newest state in the API.
func (w *worker) setPod(pod *corev1.Pod) {
	w.mu.Lock()
	old := w.pod
	if !newer(pod.ResourceVersion, old.ResourceVersion) && old != pod && old.ResourceVersion != "" {
		w.mu.Unlock()
		return
	}
	if old == pod && w.last == &pod.Status {
		w.mu.Unlock()
		return // what our own write was answered with comes by the watch, too
	}
	w.noteResize(old, pod)
	w.pod = pod
	onlyStatus := old != pod && old.Generation == pod.Generation && old.DeletionTimestamp.Equal(pod.DeletionTimestamp) &&
		sameInt(old.DeletionGracePeriodSeconds, pod.DeletionGracePeriodSeconds) && w.last != nil &&
		sameForeign(&old.Status, &pod.Status) && old.Status.Phase == pod.Status.Phase && sameMeta(old, pod)
	if !sameMeta(old, pod) {
		w.refresh = true // the downward API shows labels and annotations
	}
	// Without a difference it is the echo of our own write. Others may also have changed what is ours, as the controller of nodes does that takes
	// this one for lost: then it is told again.
	echo := onlyStatus && !w.statusDiffers()
	w.mu.Unlock()
	if echo {
		return
	}
	w.notify()
}

// gone tells that the API has the pod no more. Its share of the node is free then, though it may still be ending (it was deleted
// without grace): the scheduler counts on that.
func (w *worker) gone() {
	w.mu.Lock()
	w.mem.Gone = true
	w.mu.Unlock()
	w.a.ledger.Release(w.uid)
	w.notify()
}

// invalidate makes the worker look at the runtime again.
func (w *worker) invalidate() {
	w.mu.Lock()
	w.obs = nil
	w.looks++
	w.mu.Unlock()
	w.notify()
}

// owns tells whether a container or sandbox was last seen as the pod's.
func (w *worker) owns(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.obs == nil {
		return false
	}
	for i := range w.obs.Sandboxes {
		if w.obs.Sandboxes[i].ID == id {
			return true
		}
	}
	return w.obs.ByID(id) != nil
}

// notify makes the worker look at the pod soon.
func (w *worker) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notifyLocked()
}

func (w *worker) notifyLocked() {
	w.pending = true
	if !w.running {
		w.running = w.a.tasks.Go(w.loop)
	}
}

// loop works until nothing is to be done, and ends.
func (w *worker) loop() {
	for {
		w.mu.Lock()
		if !w.pending || w.a.tasks.Context().Err() != nil {
			w.running = false
			w.mu.Unlock()
			return
		}
		w.pending = false
		w.mu.Unlock()
		w.sync(w.a.tasks.Context())
	}
}

// sync takes one step: observe, decide, act, tell.
func (w *worker) sync(ctx context.Context) {
	obs, ok := w.observe(ctx)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.track(obs)
	pod := w.effective()
	w.admit(ctx, pod, obs)
	if w.resize(obs) || w.granted != nil {
		pod = w.effective()
	}
	in := lifecycle.Input{Pod: pod, Observed: obs, Memory: &w.mem, Health: w.health(), Busy: w.busy, Now: now,
		Node: lifecycle.Node{IPs: w.a.cfg.NodeIPs}}
	p := lifecycle.Decide(in)
	if p.Fail != nil {
		w.mem.Failure = p.Fail
		w.a.events.Warning(w.pod, "", p.Fail.Reason, p.Fail.Message)
	}
	if p.Terminating && w.mem.Terminating.IsZero() {
		w.mem.Terminating = now
		if w.cancel != nil {
			w.cancel()
		}
	}
	w.announce(p.Waiting)
	w.wake = p.Wake
	w.apply(ctx, pod, obs, &p)
	in.Busy = w.busy
	st := lifecycle.Status(in, w.waiting)
	w.last = &st
	if w.statusDiffers() {
		w.a.status.changed(w)
	} else {
		w.last = &w.pod.Status // most pods' statuses stay for long: one copy of them is enough
	}
	if p.Finish {
		w.finish(pod)
	}
	w.arm(now)
}

// effective returns the pod with the newest status known: what this agent told last, with the conditions of others as the API has
// them. w.mu must be held.
func (w *worker) effective() *corev1.Pod { return w.granted.apply(w.newest()) }

func (w *worker) newest() *corev1.Pod {
	if w.last == nil || w.last == &w.pod.Status || w.pod.Status.Phase == corev1.PodFailed || w.pod.Status.Phase == corev1.PodSucceeded {
		return w.pod
	}
	pod := *w.pod
	pod.Status = merged(w.last, &w.pod.Status)
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

// sameOthers tells that ours ends with the very conditions that theirs has from others: nothing is to be merged then.
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

// announce notes why containers wait and records the back-off events when a wait begins.
func (w *worker) announce(waiting map[string]lifecycle.Waiting) {
	for name, n := range waiting {
		if w.waiting[name] == n {
			continue
		}
		switch n.Reason {
		case lifecycle.ReasonCrashLoop:
			w.a.events.Warning(w.pod, name, "BackOff", "Back-off restarting failed container "+name+" in pod "+podTitle(w.pod))
		case lifecycle.ReasonImagePullBackOff:
			if c := w.container(name); c != nil {
				w.a.events.Normal(w.pod, name, "BackOff", `Back-off pulling image "`+c.Image+`"`)
			}
		}
	}
	w.waiting = waiting
}

func podTitle(pod *corev1.Pod) string {
	return pod.Name + "_" + pod.Namespace + "(" + string(pod.UID) + ")"
}

// arm sets the one timer of the pod to the next thing that is due: a retry, a probe, a token. w.mu must be held.
func (w *worker) arm(now time.Time) {
	at := w.wake
	if next := w.nextProbe(now); !next.IsZero() && (at.IsZero() || next.Before(at)) {
		at = next
	}
	if !w.renew.IsZero() && w.mem.Terminating.IsZero() && (at.IsZero() || w.renew.Before(at)) {
		at = w.renew
	}
	if at.IsZero() || w.a.tasks.Context().Err() != nil {
		if w.timer != nil {
			w.timer.Stop()
			w.timerAt = time.Time{}
		}
		return
	}
	if at.Equal(w.timerAt) {
		return
	}
	w.timerAt = at
	d := max(at.Sub(now), 0)
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.tick)
	} else {
		w.timer.Reset(d)
	}
}

// tick is the timer: most often only a probe is due, which needs no look at the pod.
func (w *worker) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timerAt = time.Time{}
	if w.a.tasks.Context().Err() != nil {
		return
	}
	now := time.Now()
	if !w.renew.IsZero() && !now.Before(w.renew) {
		w.refresh = true
		w.renew = time.Time{}
		w.notifyLocked()
		return
	}
	if !w.wake.IsZero() && !now.Before(w.wake) {
		w.notifyLocked()
		return
	}
	w.arm(now)
}

func (w *worker) stopTimer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

// later makes the worker look again after d. w.mu must be held.
func (w *worker) later(d time.Duration) {
	now := time.Now()
	if at := now.Add(d); w.wake.IsZero() || at.Before(w.wake) {
		w.wake = at
	}
	w.arm(now)
}
