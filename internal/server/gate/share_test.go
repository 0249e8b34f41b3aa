package gate

import (
	"net/http"
	"net/http/httptest"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/fair"
)

func TestHeadersAreSpelledAsInNetHTTP(t *testing.T) {
	for name, want := range map[string]string{
		schemaHeader: flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID, levelHeader: flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID,
	} {
		if http.CanonicalHeaderKey(want) != name {
			t.Errorf("%s is not %s", name, want)
		}
	}
}

// TestSeatsOfWatches: a watch gives its seat back when what it begins with has been sent, other requests when they end; streams have none.
func TestSeatsOfWatches(t *testing.T) {
	for path, want := range map[string][2]int{
		"/api/v1/pods?watch=1&resourceVersion=5":   {200, 200},
		"/api/v1/pods":                             {429, 429},
		"/api/v1/namespaces/a/pods/b/log?follow=1": {200, 200},
	} {
		var g *Gate
		var before, after int
		inside := false
		other := func() int {
			w := httptest.NewRecorder()
			g.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/nodes", nil))
			return w.Code
		}
		g = open(func(c *call.Call) error {
			if inside {
				return nil
			}
			inside = true
			c.HasBegun()
			before = other()
			c.HasBegun()
			after = other()
			return nil
		})
		g.cfg.Fairness = fair.New(fair.Config{Seats: 1})
		g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		if before != want[0] || after != want[1] || g.flight.reads.Load() != 0 {
			t.Errorf("in the midst of %s: %d, then %d, want %v; %d in flight", path, before, after, want, g.flight.reads.Load())
		}
		if code := other(); code != 200 {
			t.Errorf("after %s: %d", path, code)
		}
	}
}
