package history

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Kind is what a client asked for.
type Kind int

// Kinds of operations.
const (
	Create Kind = iota
	Update      // provided that the object is as expected (by resourceVersion)
	Delete      // likewise
	Read        // without resourceVersion: must be consistent
	List        // likewise
)

func (k Kind) String() string { return [...]string{"create", "update", "delete", "read", "list"}[k] }

// writes reports whether the operation changes something.
func (k Kind) writes() bool { return k <= Delete }

// Outcome is what a client knows about its operation.
type Outcome int

// Outcomes of operations.
const (
	Done    Outcome = iota // the server said so; for a Read also that there is no such object
	Refused                // for sure not done, for a reason that says something about the object
	NotSent                // for sure not done, and nothing is known about the object
	Unknown                // done, not done, or still to be done: time-outs, lost connections, answers from 500 on
)

func (o Outcome) String() string { return [...]string{"done", "refused", "not sent", "unknown"}[o] }

// Reasons of refusals, as in metav1.Status.
const (
	AlreadyExists = "AlreadyExists"
	Conflict      = "Conflict"
	NotFound      = "NotFound"
)

// Version is what an object was: its value, and the revision (resourceVersion) that wrote it. The zero Version is no object.
type Version struct {
	Value string
	Rev   int64
}

func (v Version) String() string {
	if v.Value == "" {
		return "nothing"
	}
	return fmt.Sprintf("%s@%d", v.Value, v.Rev)
}

// Op is one operation of one client. Times are since the beginning of the history.
type Op struct {
	Client, Server string
	Kind           Kind
	Key            string
	Value          string  // that a Create or Update writes
	Expect         Version // on which an Update or Delete depends
	Call, Return   time.Duration
	Outcome        Outcome
	Reason         string             // of a refusal; else what went wrong
	Found          Version            // by a Read that is done; what a Create or Update that is done wrote
	Rev            int64              // of a List that is done
	Items          map[string]Version // likewise
}

func (o *Op) String() string {
	s := fmt.Sprintf("%s [%v-%v] at %s: %s %s", o.Client, o.Call.Round(time.Microsecond), o.Return.Round(time.Microsecond), o.Server, o.Kind, o.Key)
	if o.Kind == Update || o.Kind == Delete {
		s += " from " + o.Expect.String()
	}
	if o.Value != "" {
		s += " to " + o.Value
	}
	s += ": " + o.Outcome.String()
	switch {
	case o.Outcome != Done:
		s += " " + o.Reason
	case o.Kind == List:
		s += fmt.Sprintf(" %d items @%d", len(o.Items), o.Rev)
	case o.Kind != Delete:
		s += " " + o.Found.String()
	}
	return s
}

// EventType is what a follower was told.
type EventType int

// Types of events.
const (
	Connected EventType = iota // a connection began; Rev is the revision from which it resumed
	Replaced                   // a list took the place of all that was known: List
	Added
	Modified
	Deleted
	Bookmark
)

func (t EventType) String() string {
	return [...]string{"CONNECTED", "REPLACED", "ADDED", "MODIFIED", "DELETED", "BOOKMARK"}[t]
}

// Event is something that a follower was told.
type Event struct {
	At     time.Duration
	Server string
	Type   EventType
	Key    string
	Value  string
	Rev    int64
	List   *Op // of Replaced
}

func (e Event) String() string {
	return fmt.Sprintf("%v at %s: %s %s %s @%d", e.At.Round(time.Microsecond), e.Server, e.Type, e.Key, e.Value, e.Rev)
}

// Follower is all that one watching client was told, in that order.
type Follower struct {
	Name   string
	Events []Event
}

// Mark is a moment at which something was done to the cluster.
type Mark struct {
	Name string
	At   time.Duration // when it was done
	From time.Duration // from when on it was in effect for sure
}

// History is what clients did and were told.
type History struct {
	Ops       []*Op // by their return
	Followers []*Follower
	Marks     []Mark
}

// Recorder gathers a History. It may be used by many goroutines.
type Recorder struct {
	began time.Time

	mu        sync.Mutex
	ops       []*Op
	followers []*Follower
	marks     []Mark
	acked     int
}

// NewRecorder returns a Recorder whose history begins now.
func NewRecorder() *Recorder { return &Recorder{began: time.Now()} }

// Now is the time in the history.
func (r *Recorder) Now() time.Duration { return time.Since(r.began) }

func (r *Recorder) add(o *Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.Return = r.Now()
	r.ops = append(r.ops, o)
	if o.Kind.writes() && o.Outcome == Done {
		r.acked++
	}
}

func (r *Recorder) follower(name string) *Follower {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &Follower{Name: name}
	r.followers = append(r.followers, f)
	return f
}

func (r *Recorder) told(f *Follower, e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.At = r.Now()
	f.Events = append(f.Events, e)
}

// Mark notes that something was done at a time, and is in effect from now on.
func (r *Recorder) Mark(name string, at time.Duration) Mark {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := Mark{Name: name, At: at, From: r.Now()}
	r.marks = append(r.marks, m)
	return m
}

// Acked is the number of writes that were acknowledged so far.
func (r *Recorder) Acked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

// Resumed returns how long after the mark the first write was acknowledged of those that were begun when it was in effect; false if none was yet.
func (r *Recorder) Resumed(m Mark) (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return resumed(r.ops, m)
}

func resumed(ops []*Op, m Mark) (time.Duration, bool) {
	first, _ := slices.BinarySearchFunc(ops, m.From, func(o *Op, t time.Duration) int { return int(o.Return - t) })
	for _, o := range ops[first:] {
		if o.Kind.writes() && o.Outcome == Done && o.Call >= m.From {
			return o.Return - m.At, true
		}
	}
	return 0, false
}

// History returns what was recorded so far.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &History{Ops: slices.Clone(r.ops), Marks: slices.Clone(r.marks)}
	for _, f := range r.followers {
		h.Followers = append(h.Followers, &Follower{Name: f.Name, Events: slices.Clone(f.Events)})
	}
	return h
}
