package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// health answers /healthz, /livez and /readyz, the only paths that need no user. It reports whether the path was one.
func (s *Server) health(x *exchange) bool {
	path := strings.Trim(x.r.URL.Path, "/")
	root, single, _ := strings.Cut(path, "/")
	if root != "healthz" && root != "livez" && root != "readyz" {
		return false
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.fail(errMethod(x.t))
		return true
	}
	checks := []Check{{"ping", func(context.Context) error { return nil }}}
	if root != "livez" {
		checks = append(checks, s.cfg.Ready...)
	}
	excluded := x.q["exclude"]
	var out strings.Builder
	failed, found := 0, single == ""
	for _, c := range checks {
		if single != "" && c.Name != single {
			continue
		}
		found = true
		if slices.Contains(excluded, c.Name) {
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if err := c.Check(x.r.Context()); err != nil {
			failed++
			if _, known := s.failing.Swap(c.Name, true); !known { // whoever polls need not hear of it each time
				s.log.Warn("a health check fails", "check", c.Name, "err", err)
			}
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.Name)
			continue
		}
		if _, failed := s.failing.LoadAndDelete(c.Name); failed {
			s.log.Info("a health check passes again", "check", c.Name)
		}
		fmt.Fprintf(&out, "[+]%s ok\n", c.Name)
	}
	if !found {
		x.fail(errNoPath())
		return true
	}
	x.healthText(root, out.String(), failed)
	return true
}

func (x *exchange) healthText(root, lines string, failed int) {
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache, private")
	_, verbose := x.q["verbose"]
	switch {
	case failed > 0:
		x.w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(x.w, "%s%s check failed\n", lines, root)
	case verbose:
		fmt.Fprintf(x.w, "%s%s check passed\n", lines, root)
	default:
		fmt.Fprint(x.w, "ok")
	}
}
