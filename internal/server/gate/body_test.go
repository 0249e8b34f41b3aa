package gate

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
)

type somebody struct{ groups []string }

func (s somebody) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: "sam", Groups: s.groups}, true, nil
}

type everything struct{}

func (everything) Authorize(context.Context, *authz.Attributes) (authz.Decision, string, error) {
	return authz.Allow, "", nil
}

// slowBody gives nothing until its deadline has passed.
type slowBody struct{ until *time.Time }

func (b slowBody) Read([]byte) (int, error) {
	time.Sleep(time.Until(*b.until))
	return 0, context.DeadlineExceeded
}

// deadlines is an answer whose connection knows a read deadline.
type deadlines struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.until = t; return nil }

func open(next call.Handler) *Gate {
	return New(Config{Authenticator: somebody{}, Authorizer: everything{}, Metrics: prometheus.NewRegistry(), Next: next, Log: slog.New(slog.DiscardHandler)})
}

// A body has 30 seconds; once it is there, the request has no deadline left on its connection.
func TestBodyWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := open(func(c *call.Call) error { _, err := c.W.Write(c.Body()); return err })
		began := time.Now()
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		g.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/namespaces/a/configmaps", slowBody{&w.until}))
		if took := time.Since(began); took < bodyWithin || took > bodyWithin+unreadWithin || w.Code/100 != 4 {
			t.Errorf("a body that does not come: %d after %s", w.Code, took)
		}
		w = &deadlines{ResponseRecorder: httptest.NewRecorder()}
		g.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/namespaces/a/configmaps", strings.NewReader("hello")))
		if w.Body.String() != "hello" || !w.until.IsZero() {
			t.Errorf("got %q, deadline %v", w.Body, w.until)
		}
	})
}

// What bodies hold is given back, and one user cannot fill the memory that is set apart for them.
func TestBodiesShareMemory(t *testing.T) {
	g := open(func(*call.Call) error { return nil })
	g.bodies = newShare(1 << 20)
	send := func(size int) int {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/namespaces/a/configmaps", strings.NewReader(strings.Repeat("x", size))))
		return w.Code
	}
	if code := send(400 << 10); code != 200 {
		t.Errorf("400 kB: %d", code)
	}
	if code := send(900 << 10); code != http.StatusTooManyRequests {
		t.Errorf("900 kB of 1 MB: %d", code)
	}
	if n := g.bodies.taken(); n != 0 {
		t.Errorf("%d bytes are not given back", n)
	}
}
