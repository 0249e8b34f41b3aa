package webhook

import (
	"context"
	"fmt"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// admittedWithin bounds how long all webhooks of one write may take together, as in Kubernetes.
const admittedWithin = 34 * time.Second

// write is a write that webhooks are asked about, by one goroutine.
type write struct {
	*Webhooks
	a        *admission.Attributes
	mutating bool
	catalog  *api.Catalog
	request  *match.Request
	versions map[match.Target]*version
}

// version is a write in one version of its resource.
type version struct {
	target      match.Target
	object, old runtime.Object // nil: none
	json        []byte         // of object
	oldJSON     []byte
	view        *cel.View
}

// begin returns the write that a describes, and the context in which webhooks are asked about it.
func (w *Webhooks) begin(ctx context.Context, a *admission.Attributes, mutating bool) (*write, context.Context, context.CancelFunc) {
	if a.Deadline.IsZero() {
		a.Deadline = time.Now().Add(admittedWithin)
	}
	ctx, cancel := context.WithDeadline(ctx, a.Deadline)
	catalog := w.cfg.Served.Now()
	return &write{w, a, mutating, catalog, a.Request(ctx, catalog), map[match.Target]*version{}}, ctx, cancel
}

// object is what is written, or asked for by a connection; nil on deletion.
func (w *write) object() runtime.Object {
	switch {
	case w.a.Connection != nil:
		return w.a.Connection
	case w.a.Object != nil:
		return w.a.Object
	}
	return nil
}

// choose returns the version in which a webhook is to be asked; nil if it is not to be.
func (w *write) choose(ctx context.Context, h *hook) (*version, error) {
	target, chosen, err := w.a.Matches(h.criteria, w.request, w.cfg.Reader)
	if err != nil || !chosen {
		return nil, err
	}
	v, err := w.version(ctx, target)
	if err != nil || h.conditions == nil {
		return v, err
	}
	if v.view == nil {
		v.view = cel.NewView(w.a, w.request.Target, cel.Version{Kind: target.Kind, Resource: target.Resource, Object: v.object, Old: v.old}, w.cfg.Authorizer)
	}
	began := time.Now()
	matched, excluded, err := h.conditions.Match(ctx, v.view)
	labels := []string{h.name, "webhook", metricType(w.mutating), string(w.a.Operation)}
	w.metrics.evaluation.WithLabelValues(labels...).Observe(time.Since(began).Seconds())
	switch {
	case err != nil:
		w.metrics.conditions.WithLabelValues(labels...).Inc()
		if h.ignore {
			return nil, nil
		}
		w.cfg.Log.Warn("the match conditions of a webhook cannot be evaluated: the write is refused", "webhook", h.name, "err", err)
		return nil, apierrors.NewForbidden(w.a.Resource.GroupResource(), w.a.Key.Name, err)
	case !matched:
		w.cfg.Log.Debug("a webhook is not asked", "webhook", h.name, "condition", excluded)
		w.metrics.excluded.WithLabelValues(labels...).Inc()
		return nil, nil
	}
	return v, nil
}

// version returns the write in a version, converted once.
func (w *write) version(ctx context.Context, t match.Target) (*version, error) {
	if v := w.versions[t]; v != nil {
		return v, nil
	}
	v := &version{target: t}
	var err error
	if obj := w.object(); obj != nil {
		if v.object, v.json, err = w.see(ctx, obj, t.Kind); err != nil {
			return nil, err
		}
	}
	if w.a.Old != nil {
		if v.old, v.oldJSON, err = w.see(ctx, w.a.Old, t.Kind); err != nil {
			return nil, err
		}
	}
	w.versions[t] = v
	return v, nil
}

// see returns an object as one of a kind, and its JSON.
func (w *write) see(ctx context.Context, obj runtime.Object, kind schema.GroupVersionKind) (runtime.Object, []byte, error) {
	in, err := w.a.In(ctx, w.catalog, obj, kind)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	in = wire.Named(in, kind)
	text, err := wire.Item(in, kind, wire.JSON)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	return in, text, nil
}

// replace puts obj, of a version's kind, in place of what is written. It keeps what no webhook changes.
func (w *write) replace(ctx context.Context, obj runtime.Object, kind schema.GroupVersionKind) error {
	w.complete(obj, kind)
	back, err := w.a.Back(ctx, w.catalog, obj, kind)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	into := w.object()
	named := into.GetObjectKind().GroupVersionKind()
	if was, is := w.a.Object, back; was != nil {
		now := is.(api.Object)
		if now.GetNamespace() != was.GetNamespace() {
			return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
		now.SetUID(was.GetUID())
		now.SetResourceVersion(was.GetResourceVersion())
		keepManagers(ctx, now, was)
	}
	reflect.ValueOf(into).Elem().Set(reflect.ValueOf(back).Elem())
	into.GetObjectKind().SetGroupVersionKind(named)
	if w.a.Object != nil && kind.Kind == w.a.Resource.Kind {
		w.a.Resource.Default(w.a.Object)
	}
	clear(w.versions)
	w.request.Labels = w.request.Labels[:0]
	for _, o := range []api.Object{w.a.Object, w.a.Old} {
		if o != nil {
			w.request.Labels = append(w.request.Labels, labels.Set(o.GetLabels()))
		}
	}
	return nil
}

// keepManagers undoes a change of managedFields that makes them unreadable.
func keepManagers(ctx context.Context, now, was api.Object) {
	if err := managedfields.ValidateManagedFields(now.GetManagedFields()); err != nil {
		now.SetManagedFields(was.GetManagedFields())
		warning.AddWarning(ctx, "", fmt.Sprintf(".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; "+
			"please fix your requests: %v", err))
	}
}

// complete drops fields that obj's kind does not have, and sets its defaults.
func (w *write) complete(obj runtime.Object, kind schema.GroupVersionKind) {
	res := w.catalog.Kind(kind)
	if res == nil || !res.Unstructured {
		api.Scheme.Default(obj)
		return
	}
	if res.Receive != nil {
		_, _ = res.Receive(obj.(api.Object)) // what is wrong with it, validation says
	}
	res.Default(obj.(api.Object))
}
