package client_test

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func labelled(name, color string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"color": color}}}
}

func onNode(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "busybox"}}},
	}
}

var eventNames = map[client.EventType]string{
	client.Added: "+", client.Modified: "~", client.Deleted: "-",
}

// next returns n events of w in short, and "full" before those of a full batch.
func next(t *testing.T, w client.Watcher, n int) (out []string) {
	t.Helper()
	for len(out) < n {
		b, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if b.Full {
			out = append(out, "full")
		}
		for _, e := range b.Events {
			s := eventNames[e.Type] + e.Object.GetName()
			if (e.Type == client.Modified || e.Type == client.Deleted) && e.Old == nil {
				t.Errorf("%s: the state before is missing", s)
			}
			out = append(out, s)
		}
	}
	return out
}

func expect(t *testing.T, w client.Watcher, want ...string) {
	t.Helper()
	if got := next(t, w, len(want)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("saw %v, want %v", got, want)
	}
}

func TestWatchOfSelection(t *testing.T) {
	c := clienttest.New(t)
	clienttest.Create(t, c, labelled("a", "red"))
	clienttest.Create(t, c, labelled("b", "blue"))
	w, err := clienttest.Watch[*corev1.ConfigMap](t.Context(), c, client.ListOptions{Namespace: "default", Labels: labels.SelectorFromSet(labels.Set{"color": "red"})})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, w, "full", "+a")
	paint := func(name, color string) {
		t.Helper()
		if _, err := client.Mutate(t.Context(), c, api.Key{Namespace: "default", Name: name}, "", func(m *corev1.ConfigMap) bool {
			m.Labels["color"] = color
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	paint("b", "red")
	paint("a", "blue")
	paint("b", "red") // nothing changes: nothing is told
	clienttest.Create(t, c, labelled("c", "green"))
	clienttest.Create(t, c, labelled("d", "red"))
	expect(t, w, "+b", "-a", "+d")
	w.Stop()
	if _, err := w.Next(t.Context()); !errors.Is(err, client.ErrStopped) {
		t.Errorf("after Stop: %v", err)
	}
}

func TestWatchOfIndex(t *testing.T) {
	c := clienttest.New(t)
	clienttest.Create(t, c, onNode("a", "n1"))
	w, err := clienttest.Watch[*corev1.Pod](t.Context(), c, client.ListOptions{Index: client.IndexNode, Value: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	expect(t, w, "full", "+a")
	clienttest.Create(t, c, onNode("b", "n2"))
	clienttest.Create(t, c, onNode("c", ""))
	c.BindMany(t.Context(), []client.Binding{{Pod: api.Key{Namespace: "default", Name: "c"}, Node: "n1"}})
	if err := client.Delete[*corev1.Pod](t.Context(), c, api.Key{Namespace: "default", Name: "a"}, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "+c", "-a")
	list, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Index: client.IndexNode, Value: "n1"})
	if err != nil || len(list) != 1 || list[0].Name != "c" {
		t.Errorf("the index holds %v, %v", list, err)
	}
	if _, err := clienttest.Watch[*corev1.ConfigMap](t.Context(), c, client.ListOptions{Index: client.IndexNode, Value: "n1"}); err == nil {
		t.Error("ConfigMaps have no nodes")
	}
}

// TestWatcherThatFellBehindBeginsAnew lets more happen than a watcher keeps.
func TestWatcherThatFellBehindBeginsAnew(t *testing.T) {
	c := clienttest.New(t)
	clienttest.Create(t, c, labelled("a", "red"))
	w, err := clienttest.Watch[*corev1.ConfigMap](t.Context(), c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	other, err := clienttest.Watch[*corev1.ConfigMap](t.Context(), c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, w, "full", "+a")
	expect(t, other, "full", "+a")
	flood(t, c)
	expect(t, w, "full", "+a")
	clienttest.Create(t, c, labelled("b", "red"))
	expect(t, w, "+b")

	// Stop may come while the watcher begins anew.
	done := make(chan error)
	go func() {
		for {
			if _, err := other.Next(t.Context()); err != nil {
				done <- err
				return
			}
		}
	}()
	other.Stop()
	if err := <-done; !errors.Is(err, client.ErrStopped) {
		t.Errorf("stopped while beginning anew: %v", err)
	}
}

// flood creates and deletes ConfigMaps until every watcher of theirs has lost events.
func flood(t *testing.T, c *client.Local) {
	t.Helper()
	const size = 1000
	for range 26 { // twice as many events
		objs := make([]api.Object, size)
		for i := range objs {
			objs[i] = labelled(fmt.Sprint("flood", i), "grey")
		}
		made := make([]api.Object, size)
		for i, res := range c.CreateMany(t.Context(), objs) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
			made[i] = res.Object
		}
		for _, res := range c.DeleteMany(t.Context(), made, metav1.DeleteOptions{}) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
		}
	}
}

func TestBulkOfSeveralKinds(t *testing.T) {
	c := clienttest.New(t)
	results := c.CreateMany(t.Context(), []api.Object{labelled("a", "red"), onNode("p", ""), onNode("q", ""), labelled("a", "red")})
	for i, want := range []string{"a", "p", "q", ""} {
		if res := results[i]; want == "" && !apierrors.IsAlreadyExists(res.Err) || want != "" && (res.Err != nil || res.Object.GetName() != want) {
			t.Errorf("item %d: %+v", i, res)
		}
	}
	if n := len(c.DeleteMany(t.Context(), nil, metav1.DeleteOptions{})); n != 0 {
		t.Errorf("%d results of nothing", n)
	}
}
