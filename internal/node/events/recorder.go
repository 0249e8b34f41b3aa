package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Limits of events: those of Kubernetes' event correlator, so that a pod that fails every second does not fill the store.
const (
	eventBurst    = 25
	eventRefill   = 5 * time.Minute // one more event per object
	eventMemory   = 4096            // distinct events remembered for counting
	eventWaiting  = 1000            // events not yet written; the oldest are dropped while the API is away
	eventComplete = 10 * time.Minute
)

// Recorder writes events, counting those that repeat.
type Recorder struct {
	Settings

	mu sync.Mutex
	// known are the events as last recorded, whether written or not.
	known  map[eventKey]*corev1.Event
	budget map[types.UID]*eventBudget
	// queue waits to be written; queued are its keys.
	queue  []*corev1.Event
	queued map[eventKey]bool
	// serial makes names of events that are recorded in the same moment differ.
	serial  int
	running bool // the writer's goroutine
}

// Settings are what a recorder needs.
type Settings struct {
	Client client.Client
	Tasks  *task.Group
	Node   string // the node's name
	// Quiet leaves out what is not a warning: hollow nodes' ordinary events.
	Quiet bool
}

type eventKey struct {
	uid                          types.UID
	field, kind, reason, message string
}

type eventBudget struct {
	left float64
	at   time.Time
}

// New returns a recorder.
func New(s Settings) *Recorder {
	return &Recorder{Settings: s, known: map[eventKey]*corev1.Event{}, budget: map[types.UID]*eventBudget{}, queued: map[eventKey]bool{}}
}

// Normal records an ordinary event of a pod or, if container is not "", of one of its containers.
func (r *Recorder) Normal(pod *corev1.Pod, container, reason, message string) {
	if !r.Quiet {
		r.record(podReference(pod, container), corev1.EventTypeNormal, reason, message)
	}
}

// Warning records an event that somebody should look at.
func (r *Recorder) Warning(pod *corev1.Pod, container, reason, message string) {
	r.record(podReference(pod, container), corev1.EventTypeWarning, reason, message)
}

// NodeEvent records an event of the node itself.
func (r *Recorder) NodeEvent(kind, reason, message string) {
	name := r.Node
	r.record(corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: name, UID: types.UID(name)}, kind, reason, message)
}

func podReference(pod *corev1.Pod, container string) corev1.ObjectReference {
	ref := corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	if container == "" {
		return ref
	}
	list := "containers"
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == container {
			list = "initContainers"
		}
	}
	if podspec.Target(pod, container) != "" {
		list = "ephemeralContainers"
	}
	ref.FieldPath = fmt.Sprintf("spec.%s{%s}", list, container)
	return ref
}

func (r *Recorder) record(ref corev1.ObjectReference, kind, reason, message string) {
	if len(message) > 1024 {
		message = message[:1021] + "..."
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.allow(ref.UID, now) {
		return
	}
	k := eventKey{ref.UID, ref.FieldPath, kind, reason, message}
	stamp := metav1.NewTime(now.Truncate(time.Second))
	e := r.known[k]
	if e != nil && now.Sub(e.LastTimestamp.Time) < eventComplete {
		next := *e
		next.Count++
		next.LastTimestamp = stamp
		e = &next
	} else {
		r.serial++
		ns := ref.Namespace
		if ns == "" {
			ns = metav1.NamespaceDefault
		}
		e = &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x%02x", ref.Name, now.UnixNano(), r.serial&0xff), Namespace: ns},
			InvolvedObject: ref, Reason: reason, Message: message, Type: kind, Count: 1, FirstTimestamp: stamp, LastTimestamp: stamp,
			Source: corev1.EventSource{Component: "kubelet", Host: r.Node}, ReportingController: "kubelet", ReportingInstance: r.Node,
		}
	}
	if len(r.known) >= eventMemory {
		clear(r.known)
	}
	r.known[k] = e
	if !r.queued[k] {
		r.queued[k] = true
		r.queue = append(r.queue, e)
		if len(r.queue) > eventWaiting {
			r.queue = r.queue[1:]
		}
	}
	if !r.running {
		r.running = r.Tasks.Go(r.run)
	}
}

// allow reports whether the object has not had too many events lately.
func (r *Recorder) allow(uid types.UID, now time.Time) bool {
	if len(r.budget) >= eventMemory {
		clear(r.budget)
	}
	b := r.budget[uid]
	if b == nil {
		b = &eventBudget{left: eventBurst, at: now}
		r.budget[uid] = b
	}
	b.left = min(b.left+float64(now.Sub(b.at))/float64(eventRefill), eventBurst)
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (r *Recorder) run() {
	ctx := r.Tasks.Context()
	var wait task.Retry
	for ctx.Err() == nil {
		r.mu.Lock()
		batch := make([]api.Object, 0, len(r.queue))
		for _, e := range r.queue {
			k := keyOf(e)
			if latest := r.known[k]; latest != nil {
				e = latest
			}
			delete(r.queued, k)
			batch = append(batch, e.DeepCopy()) // the front door completes what it is given
		}
		r.queue = nil
		if len(batch) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		if r.write(ctx, batch) {
			wait.Reset()
		} else {
			wait.Wait(ctx)
		}
	}
	r.mu.Lock()
	r.running = false
	r.mu.Unlock()
}

func keyOf(e *corev1.Event) eventKey {
	return eventKey{e.InvolvedObject.UID, e.InvolvedObject.FieldPath, e.Type, e.Reason, e.Message}
}

// write creates new events and counts up the others. It returns false if the API is away; what it could not take is kept.
func (r *Recorder) write(ctx context.Context, batch []api.Object) bool {
	var fresh []api.Object
	var away []*corev1.Event
	for _, o := range batch {
		e := o.(*corev1.Event)
		if e.ResourceVersion == "" {
			fresh = append(fresh, e)
			continue
		}
		// Nodes may write events but not read them, and nobody else writes this one: it replaces whatever is there.
		again := *e
		again.ResourceVersion = ""
		out, err := r.Client.Update(ctx, &again, "")
		switch {
		case err == nil:
			r.stored(out.(*corev1.Event))
		case apierrors.IsNotFound(err):
			r.drop(e) // its time was over; the next one is new
		case !refused(err):
			away = append(away, e)
		}
	}
	if len(fresh) > 0 {
		for i, res := range r.Client.CreateMany(ctx, fresh) {
			e := fresh[i].(*corev1.Event)
			switch {
			case res.Err == nil:
				r.stored(res.Object.(*corev1.Event))
			case refused(res.Err):
				r.drop(e)
			default:
				away = append(away, e)
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range away {
		if k := keyOf(e); !r.queued[k] && len(r.queue) < eventWaiting {
			r.queued[k] = true
			r.queue = append(r.queue, e)
		}
	}
	return len(away) == 0
}

// refused reports whether err is an answer that will not change, rather than an API that is away.
func refused(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsBadRequest(err)
}

// stored remembers the event as the API has it, with a count that may have gone up meanwhile.
func (r *Recorder) stored(e *corev1.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := keyOf(e)
	next := *e
	if have := r.known[k]; have != nil && have.Name == e.Name {
		next.Count, next.LastTimestamp = max(have.Count, e.Count), have.LastTimestamp
	}
	r.known[k] = &next
}

func (r *Recorder) drop(e *corev1.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, keyOf(e))
}
