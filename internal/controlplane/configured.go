package controlplane

import (
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/plugins"
	"github.com/knarr-io/knarr/internal/server/admission/policy"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// configured returns the admission plugins that apply what users have configured, in kube-apiserver's order: those that change objects first.
func (p *Plane) configured(front *registry.Registry, reader registry.Reader, programs *cel.Programs) []admission.Plugin {
	figures := policy.NewMetrics()
	if p.cfg.Metrics != nil {
		p.cfg.Metrics.MustRegister(figures)
	}
	served := func() *api.Catalog { return front.Served().Now() }
	cfg := policy.Config{
		Source: reader, Catalog: served, Authorizer: p.Authorizer(), Programs: programs,
		Files: p.cfg.Manifests, Metrics: figures, Log: p.cfg.Log,
	}
	return []admission.Plugin{
		plugins.ParamAccess{Reader: reader, Catalog: served, Authorizer: p.Authorizer()},
		policy.NewMutating(cfg), p.webhooks.Mutating(), policy.NewValidating(cfg), p.webhooks.Validating(),
	}
}
