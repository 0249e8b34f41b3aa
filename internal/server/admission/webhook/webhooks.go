package webhook

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/server/request"
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
	// Files are the configurations that come from files; nil for none.
	Files   *manifests.Files
	Metrics prometheus.Registerer
	Log     *slog.Logger
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
	w.mutating = w.configured(api.MutatingWebhookConfigurations)
	w.validating = w.configured(api.ValidatingWebhookConfigurations)
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

func (w *Webhooks) configured(res *api.Resource) *configurations {
	return &configurations{res: res, table: w.cfg.Store.Table(res.Table()), cfg: &w.cfg}
}

// asked returns the webhooks that may be asked about a write. What the server itself writes before it serves depends on none. What configures
// admission depends on none that it could change, but those of files are asked (KEP-5793).
func (w *Webhooks) asked(ctx context.Context, a *admission.Attributes, c *configurations) []*hook {
	switch {
	case !c.any() || !w.serving.Load() && request.From(ctx).InProcess:
		return nil
	case a.Resource.Group == api.ValidatingWebhookConfigurations.Group:
		return c.fromFiles()
	}
	return c.now()
}

// configurations are the compiled configurations of one kind.
type configurations struct {
	res   *api.Resource
	table *store.Table
	cfg   *Config

	mu   sync.Mutex
	seen *store.Snapshot // what is compiled
	of   map[string]configuration
	all  []*hook

	read  string // the revision of the files that are compiled
	fixed []*hook
}

// configuration is one that is compiled.
type configuration struct {
	object api.Object
	hooks  []*hook
}

// any reports whether there are configurations.
func (c *configurations) any() bool { return c.table.Len() > 0 || len(c.cfg.Files.Of(c.res)) > 0 }

// fromFiles returns the webhooks that files configure. It is not to be changed.
func (c *configurations) fromFiles() []*hook {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readFiles()
	return c.fixed
}

// readFiles compiles what files configure, and reports whether that is anything new.
func (c *configurations) readFiles() (changed bool) {
	now := c.cfg.Files.Revision(c.res)
	if now == c.read {
		return false
	}
	var hooks []*hook
	for _, obj := range c.cfg.Files.Of(c.res) {
		hooks = append(hooks, compile(obj, c.fixed, c.cfg.Programs, c.cfg.Store)...)
	}
	c.read, c.fixed = now, hooks
	return true
}

// now returns the webhooks of all configurations, those of files first, in the order of their names. It is not to be changed.
func (c *configurations) now() []*hook {
	snap := c.table.Snapshot()
	c.mu.Lock()
	defer c.mu.Unlock()
	if changed := c.readFiles(); !changed && c.seen != nil {
		if _, same := snap.At(c.seen.Rev); same || c.seen.Rev > snap.Rev { // another write saw more
			return c.all
		}
	}
	next, all := make(map[string]configuration, snap.Len()), slices.Clone(c.fixed)
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
