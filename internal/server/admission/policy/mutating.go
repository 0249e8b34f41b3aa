package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/cel"
)

// Mutating is the admission plugin that applies MutatingAdmissionPolicies.
type Mutating struct {
	cfg   Config
	rules followed[*cel.Mutating]
	types types
}

// NewMutating returns the plugin.
func NewMutating(cfg Config) *Mutating {
	return &Mutating{cfg: cfg, rules: followed[*cel.Mutating]{
		source: cfg.Source, files: cfg.Files, policies: api.MutatingAdmissionPolicies, bindings: api.MutatingAdmissionPolicyBindings,
		read: func(obj api.Object) *rule[*cel.Mutating] {
			p := obj.(*admissionregistrationv1.MutatingAdmissionPolicy)
			return &rule[*cel.Mutating]{
				name: p.Name, says: cfg.Programs.Mutating(&p.Spec), ignores: ignores(p.Spec.FailurePolicy), criteria: match.Policy(p.Spec.MatchConstraints),
				kind: p.Spec.ParamKind, again: p.Spec.ReinvocationPolicy == admissionregistrationv1.IfNeededReinvocationPolicy,
			}
		},
		bind: func(obj api.Object) *binding {
			b := obj.(*admissionregistrationv1.MutatingAdmissionPolicyBinding)
			return &binding{name: b.Name, policy: b.Spec.PolicyName, criteria: match.Policy(b.Spec.MatchResources), params: b.Spec.ParamRef}
		},
	}}
}

// Name implements admission.Plugin.
func (*Mutating) Name() string { return "MutatingAdmissionPolicy" }

// Validate implements admission.Plugin.
func (*Mutating) Validate(context.Context, *admission.Attributes) error { return nil }

// Admit implements admission.Plugin.
func (p *Mutating) Admit(ctx context.Context, a *admission.Attributes) error {
	if a.Operation == admission.Delete {
		return nil
	}
	rules := p.rules.mean(a.Resource)
	if len(rules) == 0 {
		return nil
	}
	w := newWrite(ctx, a, &p.cfg)
	var todo []call[*cel.Mutating]
	var problems []problem
	for _, c := range meant(ctx, w, rules) {
		switch {
		case c.err == nil:
			todo = append(todo, c)
		case c.rule.ignores:
		case c.binding == nil:
			problems = append(problems, problem{policy: c.rule.name, err: fmt.Errorf("failed to configure policy: %w", c.err)})
		default:
			problems = append(problems, problem{policy: c.rule.name, binding: c.binding.name, err: fmt.Errorf("failed to configure binding: %w", c.err)})
		}
	}
	if len(todo) > 0 {
		more, err := p.mutate(ctx, w, todo)
		if err != nil {
			return err
		}
		problems = append(problems, more...)
	}
	return refusedBy(a, problems)
}

// mutate applies policies one after the other, each to what those before it have made.
func (p *Mutating) mutate(ctx context.Context, w *write, todo []call[*cel.Mutating]) (problems []problem, _ error) {
	r := rounds(w.a, p.Name())
	r.begin(w.object())
	defer func() { r.end(w.object()) }()
	ns, err := w.namespace()
	if err != nil {
		return nil, err
	}
	for i := range todo {
		c := &todo[i]
		fail := func(err error) {
			if !c.rule.ignores {
				problems = append(problems, problem{c.rule.name, c.binding.name, err, metav1.StatusReasonInvalid})
			}
		}
		view, err := w.view(ctx, c.target)
		if err != nil {
			fail(fmt.Errorf("failed to configure policy: %w", err))
			continue
		}
		in := cel.Inputs{Params: c.param, Namespace: ns}
		matched, err := c.rule.says.Match(ctx, view, in)
		if err != nil {
			fail(err)
		}
		if err != nil || !matched || !r.due(c) {
			continue
		}
		before := view.Object()
		for n := range c.rule.says.Mutations() {
			if view.Object() == nil {
				break // there is nothing to change
			}
			err := p.apply(ctx, w, c, n, view, in)
			if status := (*apierrors.StatusError)(nil); errors.As(err, &status) {
				return nil, status
			}
			if err != nil {
				fail(err)
			}
		}
		if !apiequality.Semantic.DeepEqual(before, view.Object()) {
			r.changed()
			if err := w.write(ctx, c.target, view); err != nil {
				return nil, err
			}
		}
		r.done(c)
	}
	return problems, nil
}

// apply applies one mutation of a policy to the object of a view.
func (p *Mutating) apply(ctx context.Context, w *write, c *call[*cel.Mutating], n int, view *cel.View, in cel.Inputs) error {
	types, err := p.types.of(w.catalog, c.target.Kind)
	if err != nil {
		return err
	}
	began := time.Now()
	obj, err := c.rule.says.Patch(ctx, n, view, in, types)
	seen := observation{policy: c.rule.name, binding: c.binding.name, trouble: "no_error", took: time.Since(began)}
	if err == nil {
		obj, err = whole(w.catalog, obj, view.Object(), c.target.Kind)
	}
	if err != nil {
		seen.trouble = troubleOf(err.Error())
	}
	p.cfg.Metrics.mutated(seen)
	if err != nil {
		return err
	}
	view.Changed(obj)
	return nil
}
