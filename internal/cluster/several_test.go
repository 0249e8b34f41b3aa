package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/store"
)

// member is one server's etcd, reached by the others over TLS on the loopback.
type member struct {
	t    *testing.T
	name string
	dir  string
	addr string
	keys *pki.PKI

	etcd    *Etcd
	gate    *Gate
	http    *http.Server
	cancel  context.CancelFunc
	running sync.WaitGroup
	ended   chan error // what Run returned
	leading atomic.Int64
}

// url is where the others reach it.
func (m *member) url() string { return "https://" + m.addr }

// newMember makes the keys and finds an address for a server, with the keys of another if given.
func newMember(t *testing.T, name string, other *member) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, name: name, dir: t.TempDir(), addr: l.Addr().String()}
	_ = l.Close() // start takes it again
	if other != nil {
		shared, err := other.keys.Shared()
		if err != nil {
			t.Fatal(err)
		}
		if err := pki.Install(PKIDir(m.dir), shared); err != nil {
			t.Fatal(err)
		}
	}
	if m.keys, err = pki.Ensure(PKIDir(m.dir), pki.Params{Server: name, NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	return m
}

// start starts it; join is for the first start of one that was added.
func (m *member) start(join string) {
	m.t.Helper()
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	m.etcd, err = OpenEtcd(EtcdConfig{Dir: filepath.Join(m.dir, "etcd"), Name: m.name, PeerURL: m.url(), Peer: m.keys.PeerFiles(), Join: join, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		_ = l.Close()
		m.t.Fatalf("starting %s: %v", m.name, err)
	}
	ready := make(chan struct{})
	m.gate = &Gate{Peers: m.etcd.PeerHandler(), Contact: m.etcd.Contact(), Several: m.etcd.Several, Ready: ready, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/wait":
			<-r.Context().Done()
		case "/members":
			w.WriteHeader(http.StatusTeapot)
		}
	})}
	m.http = &http.Server{Handler: m.keys.VerifyClients(m.gate), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	srv := m.http
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.running.Go(func() { _ = srv.Serve(tls.NewListener(l, m.keys.ServerTLS())) })
	etcd, ended := m.etcd, make(chan error, 1)
	m.ended = ended
	m.running.Go(func() { ended <- etcd.Run(ctx) })
	m.running.Go(func() {
		if etcd.WaitReady(ctx) == nil {
			close(ready)
		}
	})
	m.running.Go(func() {
		_ = etcd.Lead(ctx, func(ctx context.Context) error {
			m.leading.Add(1)
			<-ctx.Done()
			m.leading.Add(-1)
			return nil
		})
	})
}

// kill ends it without a word to the others.
func (m *member) kill() {
	m.etcd.server.Server.HardStop()
	m.stop()
}

// stop ends it, if it runs.
func (m *member) stop() {
	if m.etcd == nil {
		return
	}
	m.cancel()
	m.etcd.Close()
	_ = m.http.Close()
	m.running.Wait()
	m.etcd = nil
}

func (m *member) backend() *store.Etcd {
	return store.NewEtcd(m.etcd.Client()).WithLeader(m.etcd.Leader)
}

// ready waits until it answers for the cluster.
func (m *member) ready() {
	m.t.Helper()
	within(m.t, m.name+" is ready", func(ctx context.Context) error { _, err := m.backend().Revision(ctx); return err })
}

// within waits for a condition.
func within(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		once, stop := context.WithTimeout(ctx, 10*time.Second)
		err := check(once)
		stop()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not in time: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// grow adds a server to the cluster of m and waits until it votes.
func (m *member) grow(name string) *member {
	m.t.Helper()
	n := newMember(m.t, name, m)
	join, err := m.etcd.AddMember(m.t.Context(), name, n.url())
	if err != nil {
		m.t.Fatalf("adding %s: %v", name, err)
	}
	n.start(join)
	m.voting(name)
	n.ready()
	return n
}

// voting waits until a server votes.
func (m *member) voting(name string) {
	m.t.Helper()
	within(m.t, name+" votes", func(ctx context.Context) error {
		list, err := m.etcd.Members(ctx)
		if err != nil {
			return err
		}
		for _, l := range list {
			if l.Name == name && !l.Learner && l.Answers {
				return nil
			}
		}
		return fmt.Errorf("the servers are %+v", list)
	})
}

func three(t *testing.T) []*member {
	t.Helper()
	a := newMember(t, "a", nil)
	a.start("")
	a.ready()
	return []*member{a, a.grow("b"), a.grow("c")}
}

// leader waits for one of members to lead, and returns its index.
func leader(t *testing.T, members []*member) int {
	t.Helper()
	found := -1
	within(t, "a leader", func(context.Context) error {
		for i, m := range members {
			if m.etcd != nil && m.leading.Load() == 1 && m.etcd.server.Server.Leader() == m.etcd.server.Server.MemberID() {
				found = i
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return found
}

func TestServersOutliveTheirLeader(t *testing.T) {
	t.Parallel()
	members := three(t)
	acked := map[string]bool{}
	var mu sync.Mutex
	for round := range 3 {
		lost := leader(t, members)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var since atomic.Int64 // acknowledged through the others since the leader was killed
		var killed atomic.Bool
		for i, m := range members {
			b := m.backend()
			wg.Go(func() {
				for n := 0; ctx.Err() == nil && !(i == lost && killed.Load()); n++ {
					key := fmt.Sprintf("/registry/%d-%s-%d", round, m.name, n)
					_, err := b.Commit(ctx, []store.Op{{Key: key, Value: []byte(key), If: 0}})
					if conflict := new(store.ConflictError); errors.As(err, &conflict) {
						t.Errorf("%s is nobody else's, and was refused: %v", key, err)
					}
					if err == nil {
						mu.Lock()
						acked[key] = true
						mu.Unlock()
						if killed.Load() && i != lost {
							since.Add(1)
						}
					}
				}
			})
		}
		within(t, "writes", func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if len(acked) < 20*(round+1) {
				return fmt.Errorf("%d are acknowledged", len(acked))
			}
			return nil
		})
		killed.Store(true)
		at := time.Now()
		members[lost].kill()
		within(t, "writes go on without the leader", func(context.Context) error {
			if since.Load() == 0 {
				return errors.New("none is acknowledged")
			}
			return nil
		})
		t.Logf("round %d: writes go on %v after the leader's end", round, time.Since(at).Round(time.Millisecond))
		now := leader(t, members)
		if now == lost {
			t.Errorf("the server that was killed leads")
		}
		cancel()
		wg.Wait()
		members[lost].start("")
		members[lost].ready()
	}
	for _, m := range members {
		found := map[string]bool{}
		if _, err := m.backend().Load(t.Context(), "/registry/", func(kv store.KV) error { found[kv.Key] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		for key := range acked {
			if !found[key] {
				t.Errorf("%s was acknowledged, and %s has lost it", key, m.name)
			}
		}
	}
}

func TestServerThatIsCutOffRefuses(t *testing.T) {
	t.Parallel()
	members := three(t)
	i := leader(t, members)
	m := members[i]
	client := httptest.NewServer(m.gate) // what clients of this server would get; not its own listener, lest TLS be in the way
	defer client.Close()
	get := func(path string) (int, string) {
		resp, err := http.Get(client.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	within(t, "it answers", func(context.Context) error {
		if code, _ := get("/api"); code != http.StatusOK {
			return fmt.Errorf("%d", code)
		}
		return nil
	})
	watch := make(chan error, 1)
	go func() {
		resp, err := http.Get(client.URL + "/wait")
		if err == nil {
			err = resp.Body.Close()
		}
		watch <- err
	}()
	for j, other := range members {
		if j != i {
			other.kill()
		}
	}
	select {
	case <-watch:
	case <-time.After(60 * time.Second):
		t.Fatal("a watch goes on although the server is cut off")
	}
	within(t, "it refuses", func(context.Context) error {
		if code, after := get("/api"); code != http.StatusServiceUnavailable || after != "1" {
			return fmt.Errorf("%d, Retry-After %q", code, after)
		}
		return nil
	})
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("the path that tells whether it lives answers %d", code)
	}
	if m.leading.Load() != 0 {
		t.Error("it leads although it is cut off")
	}
	for j, other := range members {
		if j != i {
			other.start("")
			break
		}
	}
	within(t, "it answers again", func(context.Context) error {
		if code, _ := get("/api"); code != http.StatusOK {
			return fmt.Errorf("%d", code)
		}
		return nil
	})
}

func TestServersJoinAgainAndLeave(t *testing.T) {
	t.Parallel()
	a := newMember(t, "a", nil)
	a.start("")
	a.ready()
	if _, err := a.etcd.RemoveMember(t.Context(), "a"); !apierrors.IsConflict(err) {
		t.Errorf("removing the only server: %v", err)
	}
	b := newMember(t, "b", a)
	for range 2 { // the first attempt came to nothing
		if _, err := a.etcd.AddMember(t.Context(), "b", b.url()); err != nil {
			t.Fatal(err)
		}
	}
	join, err := a.etcd.AddMember(t.Context(), "b", b.url())
	if err != nil {
		t.Fatal(err)
	}
	b.start(join)
	a.voting("b")
	if list, err := a.etcd.Members(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("the servers: %+v %v", list, err)
	}
	for _, again := range []struct{ name, url string }{{"b", "https://127.0.0.1:1"}, {"z", b.url()}} {
		if _, err := a.etcd.AddMember(t.Context(), again.name, again.url); !apierrors.IsConflict(err) {
			t.Errorf("adding %s at %s: %v", again.name, again.url, err)
		}
	}
	c := a.grow("c")
	c.kill()
	if _, err := a.etcd.RemoveMember(t.Context(), "b"); !apierrors.IsConflict(err) {
		t.Errorf("removing one of two that are left of three: %v", err)
	}
	if _, err := a.etcd.RemoveMember(t.Context(), "c"); err != nil {
		t.Errorf("removing the one that is lost: %v", err)
	}
	if _, err := a.etcd.RemoveMember(t.Context(), "c"); !apierrors.IsNotFound(err) {
		t.Errorf("removing it again: %v", err)
	}
	if _, err := b.etcd.RemoveMember(t.Context(), "b"); err != nil {
		t.Errorf("leaving: %v", err)
	}
	select {
	case err := <-b.ended:
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("the server that has left ended with %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Error("the server that has left goes on")
	}
	b.stop()
	a.ready()
	if list, err := a.etcd.Members(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the servers that are left: %+v %v", list, err)
	}
}

func TestOnlyServersReachEtcd(t *testing.T) {
	t.Parallel()
	a := newMember(t, "a", nil)
	a.start("")
	a.ready()
	get := func(conf *tls.Config) int {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
		defer c.CloseIdleConnections()
		resp, err := c.Get(a.url() + "/members")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if code := get(a.keys.ClientTLS()); code != http.StatusTeapot {
		t.Errorf("the administrator is answered %d by etcd", code)
	}
	peer := a.keys.PeerFiles()
	pair, err := tls.LoadX509KeyPair(peer.Cert, peer.Key)
	if err != nil {
		t.Fatal(err)
	}
	if code := get(&tls.Config{RootCAs: a.keys.Pool(), Certificates: []tls.Certificate{pair}}); code != http.StatusOK {
		t.Errorf("a server is answered %d", code)
	}
}

func TestServerThatMovedTellsTheOthers(t *testing.T) {
	t.Parallel()
	a := newMember(t, "a", nil)
	a.start("")
	a.ready()
	a.stop()
	moved := newMember(t, "a", a)
	moved.dir = a.dir
	moved.start("")
	moved.ready()
	within(t, "the new address is known", func(ctx context.Context) error {
		list, err := moved.etcd.Members(ctx)
		if err == nil && list[0].URL != moved.url() {
			err = fmt.Errorf("it is %s", list[0].URL)
		}
		return err
	})
}
