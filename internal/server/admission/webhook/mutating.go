package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/audit"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/patch"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// mutating is the plugin that asks mutating webhooks, one after the other.
type mutating struct{ *Webhooks }

// Name implements admission.Plugin.
func (mutating) Name() string { return "MutatingAdmissionWebhook" }

// Remote implements admission.Remote.
func (m mutating) Remote() bool { return m.mutating.any() }

// Validate implements admission.Plugin.
func (mutating) Validate(context.Context, *admission.Attributes) error { return nil }

// rounds is what the second round of a write has to know of the first. In it only those webhooks are asked that were asked before, want to
// see later changes, and were followed by one.
type rounds struct {
	output runtime.Object  // what came of the last webhook
	asked  map[string]bool // who wants to see changes, and has been asked since the last
	due    map[string]bool // who wants to, and has not seen the last
}

// Admit implements admission.Plugin.
func (m mutating) Admit(ctx context.Context, a *admission.Attributes) error {
	hooks := m.asked(ctx, a, m.mutating)
	if len(hooks) == 0 {
		return nil
	}
	w, ctx, cancel := m.begin(ctx, a, true)
	defer cancel()
	state, _ := a.Remembered(m.Name()).(*rounds)
	if state == nil {
		state = &rounds{asked: map[string]bool{}, due: map[string]bool{}}
		a.Remember(m.Name(), state)
	}
	if a.Reinvoked() && !apiequality.Semantic.DeepEqual(state.output, w.object()) {
		state.changed() // by other plugins
	}
	for i, h := range hooks {
		if err := w.pass(ctx, hooks, i, h, state); err != nil {
			return err
		}
	}
	if state.output = nil; len(state.asked) > 0 && w.object() != nil {
		state.output = w.object().DeepCopyObject()
	}
	return nil
}

// changed makes all due that want to see changes.
func (s *rounds) changed() {
	for id := range s.asked {
		s.due[id] = true
	}
	clear(s.asked)
}

// pass asks webhook number i, if it is to be asked, and carries out what it answers.
func (w *write) pass(ctx context.Context, hooks []*hook, i int, h *hook, state *rounds) error {
	v, err := w.choose(ctx, h)
	if err != nil || v == nil || w.a.Reinvoked() && !state.due[h.id] {
		return err
	}
	if ctx.Err() != nil {
		return errTooLate()
	}
	round := 0
	if w.a.Reinvoked() {
		round = 1
	}
	place := fmt.Sprintf("mutation.webhook.admission.k8s.io/round_%d_index_%d", round, i)
	began := time.Now()
	answer, err := w.ask(ctx, h, v, w.limit(ctx, h, hooks[i+1:]))
	changed := false
	if err == nil && answer != nil {
		changed, err = w.mutate(ctx, h, v, answer, fmt.Sprintf("patch.webhook.admission.k8s.io/round_%d_index_%d", round, i))
	}
	w.annotate(ctx, place, h, changed)
	w.observe(h, time.Since(began), err)
	if changed {
		state.changed()
		w.a.Reinvoke()
	}
	if h.again {
		state.asked[h.id] = true
	}
	if err == nil {
		return nil
	}
	if err = w.settle(ctx, h, err, place); err == nil && ctx.Err() != nil {
		err = errTooLate()
	}
	return err
}

// limit is how long h may take when after may be asked after it, and validating webhooks, too.
func (w *write) limit(ctx context.Context, h *hook, after []*hook) time.Duration {
	deadline, _ := ctx.Deadline()
	n := 0
	if h.ignore {
		for _, next := range after {
			if _, chosen, _ := next.criteria.Choose(w.request); chosen {
				n++
			}
		}
		if w.Webhooks.validating.any() {
			n++
		}
	}
	return share(h.timeout, time.Until(deadline), h.ignore, n)
}

// mutate applies the patch that a webhook answered, and reports whether it changed anything.
func (w *write) mutate(ctx context.Context, h *hook, v *version, answer *admissionv1.AdmissionResponse, place string) (changed bool, _ error) {
	if len(answer.Patch) == 0 {
		return false, nil
	}
	n, err := operations(answer.Patch)
	switch {
	case err != nil:
		return false, &callError{h.name, fmt.Errorf("received undecodable patch in webhook response: %w", err), 503}
	case n == 0:
		return false, nil
	case v.object == nil:
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	case *answer.PatchType != admissionv1.PatchTypeJSONPatch:
		return false, &callError{h.name, fmt.Errorf("unsupported patch type %q", *answer.PatchType), 400}
	}
	patched, _, err := patch.Apply(types.JSONPatchType, v.json, answer.Patch, v.object)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	obj, err := decode(patched, v.target.Kind, v.object)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	w.annotatePatch(ctx, place, h, answer.Patch)
	if apiequality.Semantic.DeepEqual(v.object, obj) {
		return false, nil
	}
	return true, w.replace(ctx, obj, v.target.Kind)
}

// decode reads a patched document as an object of the same kind as before.
func decode(doc []byte, kind schema.GroupVersionKind, like runtime.Object) (runtime.Object, error) {
	var into runtime.Object = &unstructured.Unstructured{}
	if _, ok := like.(*unstructured.Unstructured); !ok {
		var err error
		if into, err = api.Scheme.New(kind); err != nil {
			return nil, err
		}
	}
	obj, _, err := wire.NewDecoder(api.Scheme).Decode(doc, wire.JSON, kind, into, metav1.FieldValidationIgnore)
	return obj, err
}

// annotate tells the audit whether a webhook changed the object.
func (w *write) annotate(ctx context.Context, place string, h *hook, changed bool) {
	if audit.AuditContextFrom(ctx) == nil {
		return
	}
	text, err := json.Marshal(struct {
		Configuration string `json:"configuration"`
		Webhook       string `json:"webhook"`
		Mutated       bool   `json:"mutated"`
	}{h.configuration.GetName(), h.name, changed})
	if err == nil {
		audit.AddAuditAnnotation(ctx, place, string(text))
	}
}

// annotatePatch tells the audit what a webhook changed, if it records requests at all.
func (w *write) annotatePatch(ctx context.Context, place string, h *hook, patch []byte) {
	if ac := audit.AuditContextFrom(ctx); ac == nil || ac.GetEventLevel().Less("Request") {
		return
	}
	text, err := json.Marshal(struct {
		Configuration string          `json:"configuration"`
		Webhook       string          `json:"webhook"`
		Patch         json.RawMessage `json:"patch"`
		PatchType     string          `json:"patchType"`
	}{h.configuration.GetName(), h.name, patch, string(admissionv1.PatchTypeJSONPatch)})
	if err == nil {
		audit.AddAuditAnnotation(ctx, place, string(text))
	}
}
