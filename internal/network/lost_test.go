package network

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/network/cni"
	"github.com/knarr-io/knarr/internal/network/nettest"
)

// watchLinks runs the node's watch until the returned function is called, and hands on what it tells.
func (w *world) watchLinks() (told chan cni.Lost, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	told, done := make(chan cni.Lost, 10), make(chan error, 1)
	go func() { done <- w.node.WatchLinks(ctx, func(l cni.Lost) { told <- l }) }()
	return told, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("WatchLinks: %v", err)
		}
	}
}

// mustTell fails the test unless the pod's link is told to be lost, and made anew if err is "".
func (w *world) mustTell(told chan cni.Lost, p *pod, err string) {
	w.t.Helper()
	select {
	case l := <-told:
		got := ""
		if l.Err != nil {
			got = l.Err.Error()
		}
		if l.ContainerID != p.id || l.Addr != p.addr || (got == "") != (err == "") || !strings.Contains(got, err) {
			w.t.Errorf("told: %+v, want %s with the error %q", l, p.id, err)
		}
	case <-time.After(10 * time.Second):
		w.t.Fatalf("the lost link of %s was not told", p.name)
	}
}

func (w *world) deleteLink(p *pod) {
	w.t.Helper()
	name := cni.LinkName("test", p.id, "eth0")
	if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
		w.t.Fatalf("deleting %s: %v %s", name, err, out)
	}
}

func TestLinksDeletedByOthersAreMadeAnew(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a, b, c := w.pod("a"), w.pod("b", map[string]any{"hostPort": 8081, "containerPort": 8080, "protocol": "tcp"}), w.pod("c")
	w.deleteLink(a) // before anybody watches
	told, stop := w.watchLinks()
	w.mustTell(told, a, "")
	w.mustAsk("from the pod whose link is new", a.ns, b.addr.String()+":8080", "b", a.addr.String())

	for range 3 {
		w.deleteLink(b)
		w.mustTell(told, b, "")
		w.mustAsk("to the pod whose link is new", a.ns, b.addr.String()+":8080", "b", a.addr.String())
		w.mustAsk("to its host port", w.outside, nodeIP.String()+":8081", "b", outsideIP.String())
	}

	// What the runtime takes away is not lost.
	if _, err := c.cni("DEL", nil); err != nil {
		t.Errorf("DEL: %v", err)
	}
	w.deleteLink(a)
	w.mustTell(told, a, "")
	stop()
	select {
	case l := <-told:
		t.Errorf("told as well: %+v", l)
	default:
	}
}

func TestASandboxWithoutItsNamespaceIsToldOnce(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	p := w.pod("a")
	told, stop := w.watchLinks()
	if err := os.Remove(p.path); err != nil {
		t.Fatal(err)
	}
	w.deleteLink(p)
	w.mustTell(told, p, "network namespace")
	stop()
	if len(told) > 0 {
		t.Errorf("told again: %+v", <-told)
	}
	if _, err := p.cni("DEL", nil); err != nil {
		t.Errorf("DEL: %v", err)
	}
}
