package gate

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/knarr-io/knarr/internal/server/call"
)

// Check is one line of /readyz.
type Check struct {
	Name  string
	Check func(ctx context.Context) error
}

// health answers /healthz, /livez and /readyz, the only paths that need no user. It reports whether the path was one.
func (g *Gate) health(c *call.Call) bool {
	path := strings.Trim(c.R.URL.Path, "/")
	root, single, _ := strings.Cut(path, "/")
	if root != "healthz" && root != "livez" && root != "readyz" {
		return false
	}
	if c.R.Method != http.MethodGet && c.R.Method != http.MethodHead {
		c.Fail(call.ErrMethod(c.Target))
		return true
	}
	checks := g.checks(root)
	c.Target.Known = single == ""
	excluded := c.Query["exclude"]
	var out strings.Builder
	failed, found := 0, single == ""
	for _, check := range checks {
		if single != "" && check.Name != single {
			continue
		}
		found = true
		if slices.Contains(excluded, check.Name) {
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", check.Name)
			continue
		}
		err := check.Check(c.R.Context())
		g.metrics.health.observe(check.Name, root, err)
		if err != nil {
			failed++
			if _, known := g.failing.Swap(check.Name, true); !known { // whoever polls need not hear of it each time
				g.cfg.Log.Warn("a health check fails", "check", check.Name, "err", err)
			}
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", check.Name)
			continue
		}
		if _, failed := g.failing.LoadAndDelete(check.Name); failed {
			g.cfg.Log.Info("a health check passes again", "check", check.Name)
		}
		fmt.Fprintf(&out, "[+]%s ok\n", check.Name)
	}
	if !found {
		c.Fail(call.ErrNoPath())
		return true
	}
	healthText(c, root, out.String(), failed)
	return true
}

// checks returns what healthz, livez or readyz checks.
func (g *Gate) checks(root string) []Check {
	checks := []Check{{"ping", func(context.Context) error { return nil }}}
	if root != "livez" {
		checks = append(checks, g.cfg.Ready...)
	}
	return checks
}

func healthText(c *call.Call, root, lines string, failed int) {
	h := c.W.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache, private")
	_, verbose := c.Query["verbose"]
	switch {
	case failed > 0:
		c.W.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(c.W, "%s%s check failed\n", lines, root)
	case verbose:
		fmt.Fprintf(c.W, "%s%s check passed\n", lines, root)
	default:
		fmt.Fprint(c.W, "ok")
	}
}
