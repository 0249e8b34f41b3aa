package manifests

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/api"
)

// every is how often directories are looked at.
const every = 5 * time.Second

// Config is what Files work with. Metrics may be nil.
type Config struct {
	Dirs    map[string]string // by plugin, as ReadConfiguration returns them
	Server  string            // the identity of this server, in metrics
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Files are the objects that directories of manifests hold. Those of a nil Files are none.
type Files struct {
	cfg     Config
	now     map[string]*atomic.Pointer[contents]
	failed  map[string]string // what each directory was last refused for
	metrics *metrics
}

// Open reads the directories, all of which must be right.
func Open(cfg Config) (*Files, error) {
	f := &Files{cfg: cfg, now: map[string]*atomic.Pointer[contents]{}, failed: map[string]string{}, metrics: newMetrics()}
	for _, plugin := range slices.Sorted(maps.Keys(cfg.Dirs)) {
		c, err := read(plugin, cfg.Dirs[plugin])
		if err != nil {
			return nil, fmt.Errorf("the manifests of %s: %w", plugin, err)
		}
		f.now[plugin] = &atomic.Pointer[contents]{}
		f.now[plugin].Store(c)
		f.metrics.loaded(plugin, f.server(), c.hash)
	}
	if cfg.Metrics != nil && len(cfg.Dirs) > 0 {
		cfg.Metrics.MustRegister(f.metrics)
	}
	return f, nil
}

// Of returns the objects of a resource, in the order of their names. They are not to be changed, and stay the same objects until their
// directory changes.
func (f *Files) Of(res *api.Resource) []api.Object {
	if f == nil {
		return nil
	}
	for plugin, c := range f.now {
		if slices.Contains(accepted[plugin], res) {
			return c.Load().objects[res]
		}
	}
	return nil
}

// Revision returns a string that is another one whenever the objects of a resource may have changed.
func (f *Files) Revision(res *api.Resource) string {
	if f == nil {
		return ""
	}
	for plugin, c := range f.now {
		if slices.Contains(accepted[plugin], res) {
			return c.Load().hash
		}
	}
	return ""
}

// Run looks at the directories every few seconds until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	if f == nil || len(f.now) == 0 {
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.look()
		}
	}
}

// look puts in force what has changed. What cannot be read or carried out leaves in force what was.
func (f *Files) look() {
	for plugin, now := range f.now {
		c, err := read(plugin, f.cfg.Dirs[plugin])
		switch {
		case err != nil && err.Error() == f.failed[plugin]: // said already
		case err != nil:
			f.failed[plugin] = err.Error()
			f.metrics.refused(plugin, f.server())
			f.cfg.Log.Error("reading admission manifests: those of before stay in force", "plugin", plugin, "dir", f.cfg.Dirs[plugin], "err", err)
		case c.hash != now.Load().hash:
			delete(f.failed, plugin)
			now.Store(c)
			f.metrics.loaded(plugin, f.server(), c.hash)
			f.cfg.Log.Info("read admission manifests anew", "plugin", plugin, "dir", f.cfg.Dirs[plugin])
		default:
			delete(f.failed, plugin)
		}
	}
}

// server is how metrics name this server.
func (f *Files) server() string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(f.cfg.Server))) }
