package policy

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
)

// Config is what policies work with.
type Config struct {
	Source     Source
	Catalog    func() *api.Catalog // of the moment
	Authorizer authz.Authorizer    // whom expressions ask
	Programs   *cel.Programs
	Files      *manifests.Files // policies and bindings that come from files; nil for none
	Metrics    *Metrics
	Log        *slog.Logger // takes audit annotations
}

// Validating is the admission plugin that applies ValidatingAdmissionPolicies.
type Validating struct {
	cfg   Config
	rules followed[*cel.Validating]
}

// NewValidating returns the plugin.
func NewValidating(cfg Config) *Validating {
	return &Validating{cfg: cfg, rules: followed[*cel.Validating]{
		source: cfg.Source, files: cfg.Files, policies: api.ValidatingAdmissionPolicies, bindings: api.ValidatingAdmissionPolicyBindings,
		read: func(obj api.Object) *rule[*cel.Validating] {
			p := obj.(*admissionregistrationv1.ValidatingAdmissionPolicy)
			return &rule[*cel.Validating]{
				name: p.Name, says: cfg.Programs.Validating(&p.Spec), ignores: ignores(p.Spec.FailurePolicy), criteria: match.Policy(p.Spec.MatchConstraints),
				kind: p.Spec.ParamKind,
			}
		},
		bind: func(obj api.Object) *binding {
			b := obj.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)
			return &binding{
				name: b.Name, policy: b.Spec.PolicyName, criteria: match.Policy(b.Spec.MatchResources), params: b.Spec.ParamRef, actions: b.Spec.ValidationActions,
			}
		},
	}}
}

func ignores(p *admissionregistrationv1.FailurePolicyType) bool {
	return p != nil && *p == admissionregistrationv1.Ignore
}

// Name implements admission.Plugin.
func (*Validating) Name() string { return "ValidatingAdmissionPolicy" }

// Admit implements admission.Plugin.
func (*Validating) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p *Validating) Validate(ctx context.Context, a *admission.Attributes) error {
	rules := p.rules.mean(a.Resource)
	if len(rules) == 0 {
		return nil
	}
	w := newWrite(ctx, a, &p.cfg)
	var o outcome
	for _, c := range meant(ctx, w, rules) {
		if err := judge(ctx, w, &c, &o); err != nil {
			return err
		}
	}
	for _, text := range o.warnings {
		warning.AddWarning(ctx, "", text)
	}
	for _, seen := range o.seen {
		p.cfg.Metrics.validated(seen)
	}
	if notes := o.audit(); len(notes) > 0 {
		for _, key := range slices.Sorted(maps.Keys(notes)) {
			p.cfg.Log.Info("a policy annotates a write", "resource", a.Resource.GroupResource(), "object", a.Key, "operation", a.Operation, "key", key, "value", notes[key])
		}
	}
	return o.refusal(a)
}

// judge adds what one policy says about a write.
func judge(ctx context.Context, w *write, c *call[*cel.Validating], o *outcome) error {
	if c.err != nil {
		o.broken(c.rule.name, c.binding, c.rule.ignores, c.err)
		return nil
	}
	view, err := w.view(ctx, c.target)
	if err != nil {
		o.broken(c.rule.name, c.binding, c.rule.ignores, err)
		return nil
	}
	in := cel.Inputs{Params: c.param}
	if in.Namespace, err = w.namespace(); err != nil {
		return err
	}
	o.add(c.rule.name, c.binding, c.rule.says.Evaluate(ctx, view, in))
	return nil
}
