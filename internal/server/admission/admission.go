// Package admission is the checks and changes that every write passes between decoding and validation, whether it came
// over HTTP or from a controller in the same process.
//
// What flows through it: one [Attributes] per write goes through the plugins in order, first all Admit (which may change
// Object), then, after validation of the object, all Validate. What must stay true: plugins read the shared copy only; one that goes
// over the network says so by being Remote; all Admit run at most twice, the second time where one of them asked for it (TestReinvocation).
// Tests: TestQuotaAtTheFrontDoor, TestWaitingForTheDefaultAccount (internal/server/admission/plugins); TestAttributes.
package admission

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
)

// Operation is what a write does.
type Operation string

// Operations, as in admission.k8s.io.
const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Attributes describe one write.
type Attributes struct {
	Operation   Operation
	Resource    *api.Resource
	Subresource string
	// Key is that of the object; its name is empty while a name is still to be generated.
	Key api.Key
	// Object is the new object (nil on delete and connect), a private copy that Admit may change in place; Old the stored one
	// (nil on create), shared. Where a subresource has a kind of its own - Scale, Binding, Eviction, TokenRequest - they are of that kind.
	Object, Old api.Object
	// Connection is what a CONNECT asks for: PodExecOptions and the like, which Admit may change in place.
	Connection runtime.Object
	// Options is the metav1.CreateOptions, UpdateOptions or DeleteOptions of the request; nil for CONNECT.
	Options runtime.Object
	User    user.Info // nil for what a server does on its own behalf before it serves, and in tests
	DryRun  bool
	// Refused says that the write fails whatever Validate says, as there is such an object already. Plugins judge it, and charge nothing.
	Refused bool
	// Deadline is when all who are asked over the network must have answered; the zero time until the first is asked.
	Deadline time.Time

	again, reinvoked bool
	memory           map[string]any
}

// Reinvoke asks for a second round of all Admit: the object has changed since the first plugins saw it.
func (a *Attributes) Reinvoke() { a.again = true }

// Reinvoked reports whether this is the second round of Admit.
func (a *Attributes) Reinvoked() bool { return a.reinvoked }

// Remember keeps what a plugin wants to know in the second round, by the plugin's name.
func (a *Attributes) Remember(plugin string, what any) {
	if a.memory == nil {
		a.memory = map[string]any{}
	}
	a.memory[plugin] = what
}

// Remembered returns what a plugin gave to Remember for this write, or nil.
func (a *Attributes) Remembered(plugin string) any { return a.memory[plugin] }

// Plugin is one check. It returns API statuses (apierrors.NewForbidden and the like).
type Plugin interface {
	Name() string
	Admit(ctx context.Context, a *Attributes) error
	Validate(ctx context.Context, a *Attributes) error
}

// Remote is a Plugin that asks somebody else over the network, at least at the moment. A batch of writes is admitted several at a
// time then.
type Remote interface {
	Plugin
	Remote() bool
}

// Chain runs plugins in order.
type Chain []Plugin

// Remote reports whether one of the plugins asks somebody else over the network.
func (c Chain) Remote() bool {
	for _, p := range c {
		if r, ok := p.(Remote); ok && r.Remote() {
			return true
		}
	}
	return false
}

// Admit lets each plugin change a.Object, and once more where a change calls for it.
func (c Chain) Admit(ctx context.Context, a *Attributes) error {
	for {
		for _, p := range c {
			if err := p.Admit(ctx, a); err != nil {
				return err
			}
		}
		if !a.again || a.reinvoked {
			return nil
		}
		a.reinvoked = true
	}
}

// Validate lets each plugin refuse the write as it will be stored.
func (c Chain) Validate(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if err := p.Validate(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// Reader is what plugins read: the shared copy.
type Reader interface {
	// Get returns the stored object, shared and immutable.
	Get(res *api.Resource, key api.Key) (api.Object, bool)
	// List visits the objects of a namespace ("" for all) in order until visit returns false.
	List(res *api.Resource, namespace string, visit func(api.Object) bool)
}
