package local

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// node is one node's keeper that runs, and what it has said.
type node struct {
	t *testing.T
	c *client.Local
	s *Store

	mu   sync.Mutex
	used map[string]bool
	said []string
}

func (n *node) NodeEvent(_, reason, message string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, reason+": "+message)
}

func (n *node) setUsed(handle string, is bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used[handle] = is
}

// newNode makes a node with the volumes named, and runs its keeper until the test ends.
func newNode(t *testing.T, there ...*corev1.PersistentVolume) *node {
	t.Helper()
	n := &node{t: t, c: clienttest.New(t), s: &Store{Dir: filepath.Join(t.TempDir(), "volumes")}, used: map[string]bool{}}
	for _, pv := range there {
		place, err := n.s.Ensure(t.Context(), pv)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(place.Dir, "file"), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *node) run() {
	k := &Keeper{Store: n.s, Client: n.c, Node: "n1", Events: n, Log: slog.New(slog.DiscardHandler), Used: func(h string) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.used[h]
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	n.t.Cleanup(func() { cancel(); <-done })
}

func (n *node) create(pvs ...*corev1.PersistentVolume) {
	n.t.Helper()
	for _, pv := range pvs {
		clienttest.Create(n.t, n.c, pv)
	}
}

func (n *node) delete(name string) {
	n.t.Helper()
	if err := client.Delete[*corev1.PersistentVolume](n.t.Context(), n.c, api.Key{Name: name}, metav1.DeleteOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// finalizers returns those of a volume, "gone" if there is none.
func (n *node) finalizers(name string) string {
	n.t.Helper()
	pv, err := client.Get[*corev1.PersistentVolume](n.t.Context(), n.c, api.Key{Name: name})
	if apierrors.IsNotFound(err) {
		return "gone"
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.Join(pv.Finalizers, " ")
}

func (n *node) has(handle string) bool {
	_, err := os.Stat(filepath.Join(n.s.Dir, handle, dataDir, "file"))
	return err == nil
}

// until waits until ok reports true.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("never: %s; said %q", what, n.said)
		}
	}
}

func held(finalizers ...string) func(*corev1.PersistentVolume) {
	return func(pv *corev1.PersistentVolume) { pv.Finalizers = finalizers }
}

func TestTheDirectoryGoesWithItsVolume(t *testing.T) {
	both := held(protection, localvolume.Finalizer)
	pv := volume("pvc-1", both)
	n := newNode(t, pv)
	n.create(pv)
	n.setUsed("pvc-1", true)
	n.run()
	n.delete("pvc-1")
	if _, err := client.Mutate(t.Context(), n.c, api.KeyOf(pv), "", func(pv *corev1.PersistentVolume) bool {
		pv.Finalizers = []string{localvolume.Finalizer}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	// A witness that the keeper has had its turn: another volume, which nobody uses.
	other := volume("pvc-2", held(localvolume.Finalizer))
	n.create(other)
	n.delete("pvc-2")
	n.until("the unused volume is gone", func() bool { return n.finalizers("pvc-2") == "gone" })
	if !n.has("pvc-1") || n.finalizers("pvc-1") != localvolume.Finalizer {
		t.Fatalf("a volume in use was removed: finalizers %s", n.finalizers("pvc-1"))
	}
	n.setUsed("pvc-1", false)
	n.until("the volume is gone", func() bool { return n.finalizers("pvc-1") == "gone" })
	if got := names(t, n.s.Dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func TestWhatIsNotToGoStays(t *testing.T) {
	retained := volume("pvc-retain", held(localvolume.Finalizer), func(pv *corev1.PersistentVolume) {
		pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	})
	protected := volume("pvc-protected", held(localvolume.Finalizer, protection))
	elsewhere := volume("pvc-elsewhere", held(localvolume.Finalizer), func(pv *corev1.PersistentVolume) {
		pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values = []string{"n2"}
	})
	all := []*corev1.PersistentVolume{retained, protected, elsewhere}
	n := newNode(t, all...)
	n.create(all...)
	n.run()
	for _, pv := range all {
		n.delete(pv.Name)
	}
	// The last to be seen: with it, all others were.
	n.until("the retained volume's object is gone", func() bool { return n.finalizers("pvc-retain") == "gone" })
	witness := volume("pvc-witness", held(localvolume.Finalizer))
	n.create(witness)
	n.delete("pvc-witness")
	n.until("the witness is gone", func() bool { return n.finalizers("pvc-witness") == "gone" })
	for _, pv := range all {
		if !n.has(pv.Name) {
			t.Errorf("the data of %s is gone", pv.Name)
		}
	}
	if a, b := n.finalizers("pvc-protected"), n.finalizers("pvc-elsewhere"); a != localvolume.Finalizer+" "+protection || b != localvolume.Finalizer {
		t.Errorf("finalizers %s, %s", a, b)
	}
}

func TestOrphansAreKept(t *testing.T) {
	n := newNode(t, volume("pvc-1"), volume("pvc-2"))
	n.create(volume("pvc-2"))
	n.run()
	n.until("the orphan is spoken of", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.said) == 1 && strings.Contains(n.said[0], "LocalVolumeOrphaned: Local volume pvc-1 (claim default/data)")
	})
	// One whose object somebody removes by force becomes one.
	n.delete("pvc-2")
	n.until("the other orphan is spoken of", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return strings.Contains(strings.Join(n.said, "\n"), "Local volume pvc-2")
	})
	if !n.has("pvc-1") || !n.has("pvc-2") {
		t.Error("data of which the API knows nothing is gone")
	}
}
