package controllertest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// CheckOverlaps fails the test where two of the controllers declare that they set the same field, or one a field below it.
func CheckOverlaps(t testing.TB, controllers []controller.Controller) {
	t.Helper()
	for i, a := range controllers {
		for _, b := range controllers[i+1:] {
			for _, x := range a.Writes {
				for _, y := range b.Writes {
					if overlap(x, y) {
						t.Errorf("controller %s %s, and controller %s %s: two controllers never set the same field", a.Name, x, b.Name, y)
					}
				}
			}
		}
	}
}

// overlap reports whether a and b set a field of the same objects.
func overlap(a, b controller.Write) bool {
	return a.Act == controller.ActSet && b.Act == controller.ActSet &&
		(a.Resource == nil || b.Resource == nil || a.Resource == b.Resource) &&
		(a.Only == "" || b.Only == "" || a.Only == b.Only) &&
		(begins(a.Field, b.Field) || begins(b.Field, a.Field))
}

// begins reports whether path is prefix or lies below it.
func begins(path, prefix []string) bool {
	return len(path) >= len(prefix) && slices.Equal(path[:len(prefix)], prefix)
}

// declared reports whether one of writes covers an act on a resource and, for ActSet, a field.
func declared(writes []controller.Write, act controller.Act, res *api.Resource, field []string) bool {
	return slices.ContainsFunc(writes, func(w controller.Write) bool {
		return w.Act == act && (w.Resource == nil || w.Resource == res) && (act != controller.ActSet || begins(field, w.Field))
	})
}

// writer is the key of the controller that reconciles in a context.
type writer struct{}

// named makes what a controller writes known as its own.
type named struct{ of controller.Controller }

func (n named) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	return n.of.Reconciler.Reconcile(context.WithValue(ctx, writer{}, &n.of), key)
}

// watched is a client that fails the test when a controller writes what it does not declare. It sees what a write changes in the stored
// object, whatever else the controller sent.
type watched struct {
	client.Client
	complain func(name, what string)

	mu  sync.Mutex
	had map[string]bool // complaints, once each
}

func newWatched(t *testing.T, c client.Client) *watched {
	return &watched{Client: c, had: map[string]bool{}, complain: func(name, what string) {
		t.Errorf("controller %s %s, which its Writes do not declare", name, what)
	}}
}

// check complains unless the controller of ctx, if it declares anything, declares the act.
func (w *watched) check(ctx context.Context, act controller.Act, res *api.Resource, field []string) {
	c, _ := ctx.Value(writer{}).(*controller.Controller)
	if c == nil || len(c.Writes) == 0 || res == api.Events || declared(c.Writes, act, res, field) {
		return
	}
	what := controller.Write{Act: act, Resource: res, Field: field}.String()
	w.mu.Lock()
	defer w.mu.Unlock()
	if said := c.Name + what; !w.had[said] {
		w.had[said] = true
		w.complain(c.Name, what)
	}
}

// Create implements client.Client.
func (w *watched) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	out, err := w.Client.Create(ctx, obj)
	if err == nil {
		w.check(ctx, controller.ActCreate, w.resourceOf(obj), nil)
	}
	return out, err
}

// CreateMany implements client.Client.
func (w *watched) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	out := w.Client.CreateMany(ctx, objs)
	for i, r := range out {
		if r.Err == nil {
			w.check(ctx, controller.ActCreate, w.resourceOf(objs[i]), nil)
		}
	}
	return out
}

// Update implements client.Client.
func (w *watched) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	before := w.stored(ctx, obj)
	out, err := w.Client.Update(ctx, obj, sub)
	if err == nil {
		w.compare(ctx, before, out)
	}
	return out, err
}

// UpdateMany implements client.Client.
func (w *watched) UpdateMany(ctx context.Context, objs []api.Object, sub string) []client.Result {
	before := make([]api.Object, len(objs))
	for i, o := range objs {
		before[i] = w.stored(ctx, o)
	}
	out := w.Client.UpdateMany(ctx, objs, sub)
	for i, r := range out {
		if r.Err == nil {
			w.compare(ctx, before[i], r.Object)
		}
	}
	return out
}

// Delete implements client.Client.
func (w *watched) Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error {
	err := w.Client.Delete(ctx, res, key, opts)
	if err == nil {
		w.check(ctx, controller.ActDelete, res, nil)
	}
	return err
}

// DeleteMany implements client.Client.
func (w *watched) DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []client.Result {
	out := w.Client.DeleteMany(ctx, objs, opts)
	for i, r := range out {
		if r.Err == nil {
			w.check(ctx, controller.ActDelete, w.resourceOf(objs[i]), nil)
		}
	}
	return out
}

// stored returns what an update of obj is going to replace; nil where it is going to conflict.
func (w *watched) stored(ctx context.Context, obj api.Object) api.Object {
	o, err := w.Client.Get(ctx, w.resourceOf(obj), api.KeyOf(obj))
	if err != nil || obj.GetResourceVersion() != "" && obj.GetResourceVersion() != o.GetResourceVersion() {
		return nil
	}
	return o
}

func (w *watched) compare(ctx context.Context, before, after api.Object) {
	if before == nil || after == nil {
		return
	}
	for _, field := range changes(before, after) {
		w.check(ctx, controller.ActSet, w.resourceOf(after), field)
	}
}

// bookkeeping is what the front door changes with every write.
var bookkeeping = []string{"metadata.resourceVersion", "metadata.generation", "metadata.managedFields"}

// kept reports whether a changed field is the writer's doing.
func kept(field []string) bool { return !slices.Contains(bookkeeping, strings.Join(field, ".")) }
