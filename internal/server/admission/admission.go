// Package admission is the checks and changes that every write passes between decoding and validation, whether it came
// over HTTP or from a controller in the same process.
//
// What flows through it: one [Attributes] per write goes through the plugins in order, first all Admit (which may change
// Object), then, after validation of the object, all Validate. What must stay true: plugins read the shared copy only; one that goes
// over the network says so by being Remote. Tests: TestQuotaAtTheFrontDoor, TestWaitingForTheDefaultAccount
// (internal/server/admission/plugins).
package admission

import (
	"context"
	"slices"

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
	Key         api.Key
	// Object is the new object (nil on delete), a private copy that Admit may change; Old the stored one (nil on create),
	// shared.
	Object, Old api.Object
	// Options is the metav1.CreateOptions, UpdateOptions or DeleteOptions of the request.
	Options runtime.Object
	User    user.Info // nil for what a server does on its own behalf before it serves, and in tests
	DryRun  bool
}

// Plugin is one check. It returns API statuses (apierrors.NewForbidden and the like).
type Plugin interface {
	Name() string
	Admit(ctx context.Context, a *Attributes) error
	Validate(ctx context.Context, a *Attributes) error
}

// Remote is a Plugin that asks somebody else over the network. A batch of writes is admitted several at a time then.
type Remote interface {
	Plugin
	Remote()
}

// Chain runs plugins in order.
type Chain []Plugin

// Remote reports whether one of the plugins is Remote.
func (c Chain) Remote() bool {
	return slices.ContainsFunc(c, func(p Plugin) bool { _, ok := p.(Remote); return ok })
}

// Admit lets each plugin change a.Object.
func (c Chain) Admit(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if err := p.Admit(ctx, a); err != nil {
			return err
		}
	}
	return nil
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
