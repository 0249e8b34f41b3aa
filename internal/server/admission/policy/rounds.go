package policy

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/cel"
)

// round is what is remembered of the mutating policies of one write: those that ask for it are applied once more if others, or the plugins after
// them, have changed the object since (reinvocationPolicy: IfNeeded).
type round struct {
	a       *admission.Attributes
	last    runtime.Object // what this plugin has left
	applied map[applied]bool
	again   map[applied]bool
}

// applied names a policy that has been applied with a parameter.
type applied struct {
	policy, binding string
	param           api.Key
}

func nameOf(c *call[*cel.Mutating]) applied {
	n := applied{policy: c.rule.name, binding: c.binding.name}
	if o, ok := c.param.(metav1.Object); ok {
		n.param = api.KeyOf(o)
	}
	return n
}

// rounds returns what is remembered of a write.
func rounds(a *admission.Attributes, plugin string) *round {
	if r, ok := a.Remembered(plugin).(*round); ok {
		return r
	}
	r := &round{a: a, applied: map[applied]bool{}, again: map[applied]bool{}}
	a.Remember(plugin, r)
	return r
}

// begin looks whether others have changed the object since the first round.
func (r *round) begin(obj runtime.Object) {
	if r.a.Reinvoked() && !apiequality.Semantic.DeepEqual(r.last, obj) {
		r.repeat()
	}
}

func (r *round) end(obj runtime.Object) {
	if obj != nil {
		r.last = obj.DeepCopyObject()
	}
}

// due reports whether a policy is to be applied in this round.
func (r *round) due(c *call[*cel.Mutating]) bool { return !r.a.Reinvoked() || r.again[nameOf(c)] }

// changed notes that a policy has changed the object: those before it, and other plugins, look at it again.
func (r *round) changed() {
	r.repeat()
	r.a.Reinvoke()
}

func (r *round) repeat() {
	for name := range r.applied {
		r.again[name] = true
	}
	clear(r.applied)
}

// done notes that a policy has been applied.
func (r *round) done(c *call[*cel.Mutating]) {
	if c.rule.again {
		r.applied[nameOf(c)] = true
	}
}
