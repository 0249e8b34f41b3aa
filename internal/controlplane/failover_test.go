package controlplane_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/cluster/join"
)

// door is an address of its own for a server, which can be shut.
type door struct {
	url string
	l   net.Listener

	mu    sync.Mutex
	conns []net.Conn
	tasks sync.WaitGroup
}

func newDoor(t *testing.T, server string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{url: "https://" + l.Addr().String(), l: l}
	d.tasks.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(server, "https://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			d.mu.Lock()
			d.conns = append(d.conns, in, out)
			d.mu.Unlock()
			for _, p := range [][2]net.Conn{{in, out}, {out, in}} {
				d.tasks.Go(func() {
					_, _ = io.Copy(p[0], p[1]) // until either side is closed
					_, _ = p[0].Close(), p[1].Close()
				})
			}
		}
	})
	t.Cleanup(d.shut)
	return d
}

// shut ends every connection and takes no more.
func (d *door) shut() {
	_ = d.l.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.tasks.Wait()
}

func TestWatchGoesOnAtAnotherServer(t *testing.T) {
	url, keys, local := controlPlane(t)
	ctx := t.Context()
	first, second := newDoor(t, url), newDoor(t, url)
	id, err := join.Join(ctx, join.Config{Dir: filepath.Join(t.TempDir(), "agent"), Server: first.url, Others: []string{first.url, second.url},
		Token: newToken(t, keys, local, time.Time{}), NodeName: "n1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.NewRemote(client.RemoteConfig{Server: id.Server, Transport: id, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := clienttest.Watch[*corev1.Service](ctx, c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if id.Servers().Current() == second.url {
		first, second = second, first
	}
	first.shut()
	for i := range 3 {
		name := "s" + strconv.Itoa(i)
		if _, err := local.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}); err != nil {
			t.Fatal(err)
		}
		await(t, w, name)
	}
	if _, err := c.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}); err != nil {
		t.Errorf("a write after the first server was lost: %v", err)
	}
}

func TestServersThatJoinLater(t *testing.T) {
	url, keys, local := controlPlane(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "agent")
	id, err := join.Join(ctx, join.Config{Dir: dir, Server: url, Token: newToken(t, keys, local, time.Time{}), NodeName: "n1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	following, stop := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	tasks.Go(func() { _ = id.Servers().Follow(following, local) })
	if _, err := client.Mutate(ctx, local, api.Key{Namespace: "default", Name: "kubernetes"}, "", func(s *discoveryv1.EndpointSlice) bool {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"192.0.2.2"}})
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{url, "https://192.0.2.1:6443", "https://192.0.2.2:6443"}
	for {
		all, changed := id.Servers().All()
		if slices.Equal(all, want) {
			break
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatalf("known are %v, want %v", all, want)
		}
	}
	if id, err = join.Load(dir, log); err != nil {
		t.Fatal(err)
	}
	if all, _ := id.Servers().All(); !slices.Equal(all, want) {
		t.Errorf("after a restart %v are known, want %v", all, want)
	}
	if id, err = join.Load(dir, log, "https://192.0.2.9:6443"); err != nil {
		t.Fatal(err)
	}
	if all, _ := id.Servers().All(); all[0] != "https://192.0.2.9:6443" || slices.Contains(all, url) {
		t.Errorf("a server that was given stands for the one that was joined: %v", all)
	}
}

// await reads events until a Service is there.
func await(t *testing.T, w client.Watcher, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		batch, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for Service %s: %v", name, err)
		}
		for _, e := range batch.Events {
			if s, ok := e.Object.(*corev1.Service); ok && s.Name == name {
				return
			}
		}
	}
}
