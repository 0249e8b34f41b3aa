package policy

import (
	"sync"
	"sync/atomic"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/admission/match"
)

// Source is the shared copy, as policies read it.
type Source interface {
	admission.Reader
	// Changed returns a revision that is another one whenever the objects of a resource have changed.
	Changed(res *api.Resource) int64
}

// rule is a policy with its bindings. P is what it says, compiled.
type rule[P any] struct {
	name     string
	says     P
	ignores  bool // failurePolicy: Ignore
	criteria *match.Criteria
	kind     *admissionregistrationv1.ParamKind
	again    bool // reinvocationPolicy: IfNeeded
	bindings []*binding
}

// binding says where a policy applies.
type binding struct {
	name, policy string
	criteria     *match.Criteria
	params       *admissionregistrationv1.ParamRef
	actions      []admissionregistrationv1.ValidationAction
}

// followed are the rules of one kind of policy, as of the shared copy's present state.
type followed[P any] struct {
	source             Source
	policies, bindings *api.Resource
	files              *manifests.Files // further policies and bindings; nil for none
	read               func(policy api.Object) *rule[P]
	bind               func(obj api.Object) *binding

	present atomic.Pointer[state[P]]
	mu      sync.Mutex // held while a state is made
}

type state[P any] struct {
	policies, bindings int64  // as of these revisions
	files              string // and of this one of the files
	rules              []*rule[P]
	fixed              int                     // how many of them, the first, are from files
	made               map[api.Object]*rule[P] // of stored policies, which never change, without bindings
	bound              map[api.Object]*binding
}

// now returns the rules, those of files first, in the order of their names, and how many are from files.
func (f *followed[P]) now() (rules []*rule[P], fixed int) {
	s := f.state()
	return s.rules, s.fixed
}

func (f *followed[P]) state() *state[P] {
	policies, bindings, files := f.source.Changed(f.policies), f.source.Changed(f.bindings), f.files.Revision(f.policies)
	if s := f.present.Load(); s != nil && s.policies == policies && s.bindings == bindings && s.files == files {
		return s
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Revisions are asked for before objects are listed: what comes in between is listed again.
	policies, bindings, files = f.source.Changed(f.policies), f.source.Changed(f.bindings), f.files.Revision(f.policies)
	last := f.present.Load()
	if last == nil {
		last = &state[P]{}
	} else if last.policies == policies && last.bindings == bindings && last.files == files {
		return last
	}
	next := f.make(last)
	next.policies, next.bindings, next.files = policies, bindings, files
	f.present.Store(next)
	return next
}

// make makes the rules of what the files and the copy hold now. What has been made of objects that are still the same is used again.
func (f *followed[P]) make(last *state[P]) *state[P] {
	next := &state[P]{made: map[api.Object]*rule[P]{}, bound: map[api.Object]*binding{}}
	files := func(res *api.Resource, each func(obj api.Object) bool) {
		for _, obj := range f.files.Of(res) {
			each(obj)
		}
	}
	f.add(next, last, files)
	next.fixed = len(next.rules)
	f.add(next, last, func(res *api.Resource, each func(obj api.Object) bool) { f.source.List(res, "", each) })
	return next
}

// add adds the rules of what list lists.
func (f *followed[P]) add(next, last *state[P], list func(res *api.Resource, each func(obj api.Object) bool)) {
	of := map[string][]*binding{}
	list(f.bindings, func(obj api.Object) bool {
		b := last.bound[obj]
		if b == nil {
			b = f.bind(obj)
		}
		next.bound[obj] = b
		of[b.policy] = append(of[b.policy], b)
		return true
	})
	list(f.policies, func(obj api.Object) bool {
		r := last.made[obj]
		if r == nil {
			r = f.read(obj)
		}
		next.made[obj] = r
		if bound := of[obj.GetName()]; len(bound) > 0 { // one that is bound nowhere means nobody
			with := *r
			with.bindings = bound
			next.rules = append(next.rules, &with)
		}
		return true
	})
}

// mean returns the rules that may mean writes of a resource. To policies and bindings, by which rules could lock themselves in, only
// those of files apply (KEP-5793).
func (f *followed[P]) mean(res *api.Resource) []*rule[P] {
	rules, fixed := f.now()
	if exempt(res) {
		return rules[:fixed]
	}
	return rules
}
