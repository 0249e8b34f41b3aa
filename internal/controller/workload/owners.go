// Package workload holds what controllers of pods share: which owners an object belongs to, which pods an owner has, how pods are made
// from a template, in bursts that begin with one, which go first, and the history of an owner's templates.
//
// What flows through it: events of owners and of what they own become keys ([Owners]); [Pods] reads the pods of one owner for a plan, and
// writes what the plan decides: adoptions, releases, new pods, deletions. [History] does the same for ControllerRevisions, among which
// [PlaceIn] finds the present template. [NewPod], [Rank] and what stands in plan_history.go are pure. What must stay true: an owner
// with an empty selector owns nothing; a pod that matches a selector and has no controller is looked at by every owner that might want it
// (TestOrphansFindTheirOwners); pods that are refused are asked for once and not by the hundred
// (TestRefusedPodsAreAskedForOneAtATime); a revision's name and data are those that Kubernetes gives it (TestRevisionsKeepTemplates).
package workload

import (
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/ownership"
)

// Owners knows all owners of one kind by their selectors, so that an orphan's owners are found without reading each of them.
type Owners struct {
	kind     schema.GroupKind
	selector func(owner api.Object) *metav1.LabelSelector

	mu      sync.Mutex
	known   map[api.Key]known
	byLabel map[label]map[api.Key]labels.Selector
	looked  map[api.Key]types.UID // owners for which orphans were looked for
}

// label is a label that an owner's selector asks for. The zero pair holds selectors that ask for no label with a certain value.
type label struct{ namespace, key, value string }

// known is an owner's selector and where it is held.
type known struct {
	text string
	at   label
}

// NewOwners returns Owners of a kind, which selector reads the selector of.
func NewOwners(kind schema.GroupKind, selector func(owner api.Object) *metav1.LabelSelector) *Owners {
	return &Owners{kind: kind, selector: selector, known: map[api.Key]known{}, byLabel: map[label]map[api.Key]labels.Selector{},
		looked: map[api.Key]types.UID{}}
}

// OwnerKeys is the Keys of the watch of the owners themselves: their own keys.
func (o *Owners) OwnerKeys(e client.Event) []api.Key {
	key := api.KeyOf(e.Object)
	sel, err := metav1.LabelSelectorAsSelector(o.selector(e.Object))
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Type == client.Deleted || err != nil || sel.Empty() {
		o.forget(key)
	} else if text := sel.String(); o.known[key].text != text {
		o.forget(key)
		at := o.place(key.Namespace, sel)
		if o.byLabel[at] == nil {
			o.byLabel[at] = map[api.Key]labels.Selector{}
		}
		o.byLabel[at][key] = sel
		o.known[key] = known{text, at}
	}
	return []api.Key{key}
}

// place chooses the label under which fewest other owners are held.
func (o *Owners) place(namespace string, sel labels.Selector) label {
	best := label{namespace: namespace}
	requirements, _ := sel.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			if values := r.ValuesUnsorted(); len(values) == 1 {
				at := label{namespace, r.Key(), values[0]}
				if best.key == "" || len(o.byLabel[at]) < len(o.byLabel[best]) {
					best = at
				}
			}
		}
	}
	return best
}

func (o *Owners) forget(key api.Key) {
	delete(o.looked, key)
	k, ok := o.known[key]
	if !ok {
		return
	}
	delete(o.known, key)
	if delete(o.byLabel[k.at], key); len(o.byLabel[k.at]) == 0 {
		delete(o.byLabel, k.at)
	}
}

// OwnedKeys is the Keys of the watch of what the owners own: an object's controller, now and before, and, where nobody controls it,
// those that might want it.
func (o *Owners) OwnedKeys(e client.Event) []api.Key {
	return ownership.EventKeys(e, o.kind, o.wanting)
}

// wanting returns the owners whose selector matches an orphan, and notes that there is one for them.
func (o *Owners) wanting(orphan api.Object) []api.Key {
	namespace, set := orphan.GetNamespace(), labels.Set(orphan.GetLabels())
	o.mu.Lock()
	defer o.mu.Unlock()
	var keys []api.Key
	add := func(at label) {
		for key, sel := range o.byLabel[at] {
			if sel.Matches(set) {
				delete(o.looked, key)
				keys = append(keys, key)
			}
		}
	}
	add(label{namespace: namespace})
	for k, v := range set {
		add(label{namespace, k, v})
	}
	slices.SortFunc(keys, func(a, b api.Key) int { return strings.Compare(a.Name, b.Name) })
	return keys
}

// Look reports whether orphans are to be looked for, for the owner with this UID, and takes it that this is done now: it means visiting
// every pod of the namespace, which must not happen at every change of one. Once is enough, and again when an orphan that matches shows
// up. It is a memory of convenience: forgetting costs one look.
func (o *Owners) Look(key api.Key, uid types.UID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.looked[key] == uid {
		return false
	}
	o.looked[key] = uid
	return true
}

// Again takes back that orphans were looked for: not all could be adopted, or the owner is gone.
func (o *Owners) Again(key api.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.looked, key)
}
