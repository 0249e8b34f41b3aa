package webhook

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/store"
)

// Config is what Webhooks work with. All but Metrics and Log are required.
type Config struct {
	Store  *store.Store
	Reader admission.Reader
	// Served is the catalogue, for the versions of resources.
	Served *api.Served
	// Authorizer is what match conditions ask, and who decides which users may heal.
	Authorizer authz.Authorizer
	// Programs are shared with the admission policies.
	Programs *cel.Programs
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Webhooks are the admission webhooks of a cluster.
type Webhooks struct {
	cfg                  Config
	mutating, validating *configurations
	metrics              *metrics
	outages              chan Outage
	serving              atomic.Bool
}

// New returns the Webhooks that are configured in cfg.Store.
func New(cfg Config) *Webhooks {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	w := &Webhooks{cfg: cfg, metrics: newMetrics(cfg.Metrics), outages: make(chan Outage, 16)}
	w.mutating = &configurations{table: cfg.Store.Table(api.MutatingWebhookConfigurations.Table()), cfg: &w.cfg}
	w.validating = &configurations{table: cfg.Store.Table(api.ValidatingWebhookConfigurations.Table()), cfg: &w.cfg}
	return w
}

// Mutating returns the plugin that asks mutating webhooks.
func (w *Webhooks) Mutating() admission.Plugin { return mutating{w} }

// Validating returns the plugin that asks validating webhooks.
func (w *Webhooks) Validating() admission.Plugin { return validating{w} }

// Serve begins to ask webhooks about what is written in the process. Before, a server makes the objects without which it cannot serve.
func (w *Webhooks) Serve() { w.serving.Store(true) }

// Run hands outages and recoveries of webhooks' back ends to report until ctx ends.
func (w *Webhooks) Run(ctx context.Context, report func(context.Context, Outage)) error {
	for {
		select {
		case o := <-w.outages:
			report(ctx, o)
		case <-ctx.Done():
			return nil
		}
	}
}

// configurations are the compiled configurations of one kind.
type configurations struct {
	table *store.Table
	cfg   *Config

	mu   sync.Mutex
	seen *store.Snapshot // what is compiled
	of   map[string]configuration
	all  []*hook
}

// configuration is one that is compiled.
type configuration struct {
	object api.Object
	hooks  []*hook
}

// any reports whether there are configurations.
func (c *configurations) any() bool { return c.table.Len() > 0 }

// now returns the webhooks of all configurations, in the order of their names. It is not to be changed.
func (c *configurations) now() []*hook {
	if !c.any() {
		return nil
	}
	snap := c.table.Snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen != nil {
		if _, same := snap.At(c.seen.Rev); same || c.seen.Rev > snap.Rev { // another write saw more
			return c.all
		}
	}
	next, all := make(map[string]configuration, snap.Len()), []*hook(nil)
	snap.Ascend("", "", func(rev *store.Revision) bool {
		obj := rev.Object.(api.Object)
		have := c.of[obj.GetName()]
		if have.object != obj {
			have = configuration{obj, compile(obj, have.hooks, c.cfg.Programs, c.cfg.Store)}
		}
		next[obj.GetName()] = have
		all = append(all, have.hooks...)
		return true
	})
	c.seen, c.of, c.all = snap, next, all
	return all
}
