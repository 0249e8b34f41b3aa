package pod

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

// Worker drives one pod. Its goroutine exists only while there is something to do; what takes long (pulling, starting, stopping) is
// done by further goroutines, at most one of each sort, which are noted in work.busy.
//
//	API watch     runtime events     probes     timer     sources     room in the ledger
//	    \___________\______________|_________/__________/________________/
//	                             notify
//	                                |
//	idle ------------------->  turn.pending  --- loop ---> sync: observe, decide, apply, report
//	  ^                             ^                        |
//	  |      nothing pending        |      an operation ended, or overtook the observation
//	  +-----------------------------+------------------------+
//
// mu guards everything below it. It is never held over a call to the runtime or the API.
type Worker struct {
	set  *Set
	host *Host
	uid  types.UID
	key  api.Key

	mu  sync.Mutex
	pod *corev1.Pod // as the API has it
	// reported is the status last handed to the status writer; nil before the first. It is &pod.Status where the two are equal: most
	// pods' statuses stay for long, and one copy of them is enough.
	reported *corev1.PodStatus
	mem      lifecycle.Memory
	// waiting says why containers wait, as last announced by events.
	waiting map[string]lifecycle.Waiting
	// probes follow the running containers, by container ID.
	probes map[string]*probe.Tracker

	seen  view
	work  operations
	made  provisions
	share share
	end   ending
	turn  turn
}

// view is what the worker has seen of the pod in the runtime.
type view struct {
	// now is what steps are decided from; nil: observe anew.
	now *lifecycle.Observed
	// latest is the last observation that succeeded, for figures.
	latest *lifecycle.Observed
	// epoch is incremented by invalidate; an observation begun in an older epoch serves one step and is not kept.
	epoch int
	// sandboxes are the IDs of the pod's sandboxes; nil: ask the runtime. It is replaced, never changed.
	sandboxes []string
	messages  map[string]string // termination messages by container ID
}

// operations are what is being done for the pod in goroutines.
type operations struct {
	busy   lifecycle.Busy
	stops  map[string]context.CancelFunc // by container ID
	cancel context.CancelFunc            // of the sandbox or start operation
}

// provisions are what was made for the pod on the node.
type provisions struct {
	volumes map[string]volume.Mounted // nil before they were set up
	renew   time.Time                 // when they must be set up again
	stale   bool                      // a ConfigMap, a Secret or the pod's metadata changed
	sandbox *cri.PodSandboxConfig     // nil: made again for the next start
	cgroup  string
}

// share is the pod's part of the node.
type share struct {
	admitted bool // it was decided whether the node can run the pod
	// granted is what the node has granted of processor and memory, where that is not what the pod asks for now; else nil.
	granted *grant
}

// ending is how far the end of the pod has come.
type ending struct {
	finishing bool // nothing of the pod is left; its last status has to be written
	asked     bool // the API was asked to remove the pod
	// resumed is true where an earlier agent began to end the pod.
	resumed bool
	// hooked are the IDs of the containers whose preStop hook has ended.
	hooked []string
}

// turn is when the worker has its next one.
type turn struct {
	running, pending bool
	wake             time.Time // when to look again
	timer            *time.Timer
	timerAt          time.Time
}

func newWorker(set *Set, pod *corev1.Pod) *Worker {
	return &Worker{set: set, host: set.host, uid: pod.UID, key: api.KeyOf(pod), pod: pod, mem: lifecycle.Memory{StartTime: time.Now()}}
}

// UID implements sources.User.
func (w *Worker) UID() types.UID { return w.uid }

// SourceChanged implements sources.User: the pod brings its volumes up to date if one of them shows that object.
func (w *Worker) SourceChanged(ref volume.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !volume.Refers(w.pod, ref) {
		return
	}
	w.made.stale = true
	w.mem.SandboxRetryAt = time.Time{} // what was missing may be there now
	w.notifyLocked()
}

// setPod takes the pod's newest state in the API.
func (w *Worker) setPod(pod *corev1.Pod) {
	w.mu.Lock()
	old := w.pod
	if !newer(pod.ResourceVersion, old.ResourceVersion) && old != pod && old.ResourceVersion != "" {
		w.mu.Unlock()
		return
	}
	if old == pod && w.reported == &pod.Status {
		w.mu.Unlock()
		return // what our own write was answered with comes by the watch, too
	}
	w.noteResize(old, pod)
	w.pod = pod
	onlyStatus := old != pod && old.Generation == pod.Generation && old.DeletionTimestamp.Equal(pod.DeletionTimestamp) &&
		sameInt(old.DeletionGracePeriodSeconds, pod.DeletionGracePeriodSeconds) && w.reported != nil &&
		sameForeign(&old.Status, &pod.Status) && old.Status.Phase == pod.Status.Phase && sameMeta(old, pod)
	if !sameMeta(old, pod) {
		w.made.stale = true // the downward API shows labels and annotations
	}
	// Without a difference it is the echo of our own write. Others may also have changed what is ours, as the controller of nodes does that takes
	// this one for lost: then it is reported again.
	echo := onlyStatus && !w.statusDiffers()
	w.mu.Unlock()
	if echo {
		return
	}
	w.notify()
}

// gone notes that the API no longer has the pod. Its share of the node is free then, though it may still be ending (it was deleted
// without grace): the scheduler counts on that.
func (w *Worker) gone() {
	w.mu.Lock()
	w.mem.Gone = true
	w.mu.Unlock()
	w.host.Ledger.Release(w.uid)
	w.notify()
}

// invalidate makes the worker look at the runtime again.
func (w *Worker) invalidate() {
	w.mu.Lock()
	w.seen.now = nil
	w.seen.epoch++
	w.mu.Unlock()
	w.notify()
}

// owns reports whether a container or sandbox was last seen as the pod's.
func (w *Worker) owns(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.now == nil {
		return false
	}
	for i := range w.seen.now.Sandboxes {
		if w.seen.now.Sandboxes[i].ID == id {
			return true
		}
	}
	return w.seen.now.ByID(id) != nil
}

// notify makes the worker look at the pod soon.
func (w *Worker) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notifyLocked()
}

func (w *Worker) notifyLocked() {
	w.turn.pending = true
	if !w.turn.running {
		w.turn.running = w.host.Tasks.Go(w.loop)
	}
}

// loop works until nothing is to be done, and ends.
func (w *Worker) loop() {
	for {
		w.mu.Lock()
		if !w.turn.pending || w.host.Tasks.Context().Err() != nil {
			w.turn.running = false
			w.mu.Unlock()
			return
		}
		w.turn.pending = false
		w.mu.Unlock()
		w.sync(w.host.Tasks.Context())
	}
}

// sync takes one step: observe, decide, act, tell.
func (w *Worker) sync(ctx context.Context) {
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
	if w.resize(obs) || w.share.granted != nil {
		pod = w.effective()
	}
	in := lifecycle.Input{Pod: pod, Observed: obs, Memory: &w.mem, Health: w.health(), Busy: w.work.busy, Now: now,
		Node: w.node()}
	p := lifecycle.Decide(in)
	if p.Fail != nil {
		w.mem.Failure = p.Fail
		w.host.Events.Warning(w.pod, "", p.Fail.Reason, p.Fail.Message)
	}
	if p.Terminating && w.mem.Terminating.IsZero() {
		w.mem.Terminating = now
		if obs.AnyRunning() {
			w.markEnd()
		}
		if w.work.cancel != nil {
			w.work.cancel()
		}
	}
	w.announce(p.Waiting)
	w.turn.wake = p.Wake
	w.apply(ctx, pod, obs, &p)
	in.Busy = w.work.busy
	st := lifecycle.Status(in, w.waiting)
	w.reported = &st
	switch {
	case !w.statusDiffers():
		w.reported = &w.pod.Status
	case !w.mem.Gone:
		w.host.Statuses.Changed(w)
	}
	if p.Finish {
		w.finish(pod)
	}
	w.arm(now)
}
