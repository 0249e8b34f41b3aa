package history

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	knarr "github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// behind is a backend whose changes come late, as they do to a server that is busy or far away.
type behind struct {
	store.Backend
	most time.Duration
}

func (b behind) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []store.Change)) error {
	return b.Backend.Watch(ctx, prefix, from, func(rev int64, changes []store.Change) {
		time.Sleep(rand.N(b.most))
		apply(rev, changes)
	})
}

// sharing runs two API servers over one backend; the changes of each other come to them late. aware reports whether they know of each other.
func sharing(t *testing.T, aware bool) []Server {
	t.Helper()
	backend := store.NewMem()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var out []Server
	for i := range 2 {
		s := store.New(behind{backend, 3 * time.Millisecond}, log, registry.Specs(api.Builtin)...)
		s.SharedWith(func() bool { return aware })
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("the store failed: %v", err)
			}
		})
		t.Cleanup(func() { cancel(); wg.Wait() })
		<-s.Ready()
		r := registry.New(registry.Config{Store: s, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), Log: log})
		if i == 0 {
			clienttest.Create(t, knarr.NewLocal(r), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}})
		}
		ts := httptest.NewServer(server.New(server.Config{Registry: r, Authenticator: master{}, Authorizer: authz.Union{authz.Masters{}}, Log: log}))
		t.Cleanup(ts.Close)
		out = append(out, NewServer(fmt.Sprintf("server-%d", i), ts.URL, nil))
	}
	return out
}

// TestServersThatShareABackend shows that a server which is behind the other one does not let its clients notice.
func TestServersThatShareABackend(t *testing.T) {
	h := runFor(t, load(sharing(t, true)...), 500, nil)
	if err := Check(h); err != nil {
		t.Error(err)
	}
	t.Log(Report(h))
}

// TestServersThatDoNotKnowOfEachOther shows that the test before would notice.
func TestServersThatDoNotKnowOfEachOther(t *testing.T) {
	h := runFor(t, load(sharing(t, false)...), 500, nil)
	if err := Check(h); err == nil || !strings.Contains(err.Error(), "a read found what was no longer") {
		t.Errorf("two servers that do not know of each other tell the truth: %v\n%s", err, Report(h))
	}
}
