package client_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

type master struct{}

func (master) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: "tester", Groups: []string{user.SystemPrivilegedGroup}}, true, nil
}

// remote returns a Remote of a real server over HTTP/2, that server's own client, and a switch that cuts all connections and
// refuses new requests while it is on.
func remote(t *testing.T) (*client.Remote, *client.Local, func(away bool), *atomic.Int64) {
	t.Helper()
	local, reg := clienttest.NewRegistry(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	api := server.New(server.Config{Registry: reg, Authenticator: master{}, Authorizer: authz.Union{authz.Masters{}}, Log: log})
	var away atomic.Bool
	var gets atomic.Int64
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodGet && r.URL.Query().Get("watch") == "" {
			gets.Add(1)
		}
		api.ServeHTTP(w, r)
	}))
	ts.EnableHTTP2 = true
	ts.StartTLS()
	t.Cleanup(ts.Close)
	r, err := client.NewRemote(client.RemoteConfig{Server: ts.URL, Transport: ts.Client().Transport, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, local, func(on bool) {
		away.Store(on)
		if on {
			ts.CloseClientConnections()
		}
	}, &gets
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": value}}
}

// until reads events until the object called name has the value ("" for deleted), and fails if that never comes.
func until(t *testing.T, w client.Watcher, name, value string) {
	t.Helper()
	for {
		b, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			cm := e.Object.(*corev1.ConfigMap)
			if cm.Name == name && (e.Type == client.Deleted && value == "" || e.Type != client.Deleted && cm.Data["k"] == value) {
				return
			}
		}
	}
}

func TestRemoteReadsWhatItWatchesFromMemory(t *testing.T) {
	r, local, _, gets := remote(t)
	ctx := t.Context()
	clienttest.Create(t, local, configMap("a", "1"))
	if _, err := client.Get[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "a"}); err != nil || gets.Load() != 1 {
		t.Fatalf("an unwatched read: %v, %d requests", err, gets.Load())
	}
	w, err := clienttest.Watch[*corev1.ConfigMap](ctx, r, client.ListOptions{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	until(t, w, "a", "1")
	before := gets.Load()
	if _, err := client.Mutate(ctx, local, api.Key{Namespace: "default", Name: "a"}, "", func(c *corev1.ConfigMap) bool { c.Data["k"] = "2"; return true }); err != nil {
		t.Fatal(err)
	}
	until(t, w, "a", "2")
	cm, err := client.Get[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "a"})
	if err != nil || cm.Data["k"] != "2" || cm.Kind != "ConfigMap" {
		t.Errorf("a watched read: %v %v", err, cm)
	}
	if _, err := client.Get[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "none"}); !apierrors.IsNotFound(err) {
		t.Errorf("a watched read of nothing: %v", err)
	}
	if list, err := client.List[*corev1.ConfigMap](ctx, r, client.ListOptions{Namespace: "default"}); err != nil || len(list) != 1 {
		t.Errorf("a watched list: %v %d", err, len(list))
	}
	if got := gets.Load(); got != before {
		t.Errorf("watched reads made %d requests", got-before)
	}
}

func TestRemoteSeesItsOwnWrites(t *testing.T) {
	r, local, _, _ := remote(t)
	ctx := t.Context()
	w, err := clienttest.Watch[*corev1.ConfigMap](ctx, r, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	clienttest.Create[*corev1.ConfigMap](t, r, configMap("mine", "0"))
	for i := range 50 {
		want := strconv.Itoa(i + 1)
		if _, err := client.Mutate(ctx, r, api.Key{Namespace: "default", Name: "mine"}, "", func(c *corev1.ConfigMap) bool { c.Data["k"] = want; return true }); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "mine"}); err != nil || got.Data["k"] != want {
			t.Fatalf("after writing %s: %v %v", want, err, got.Data)
		}
		// Somebody else writes too: the next Mutate conflicts with what the mirror may not have seen yet.
		if _, err := client.Mutate(ctx, local, api.Key{Namespace: "default", Name: "mine"}, "", func(c *corev1.ConfigMap) bool { c.Data["other"] = want; return true }); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Delete[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "mine"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, w, "mine", "")
	if _, err := r.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "Bad_Name"}}); !apierrors.IsInvalid(err) {
		t.Errorf("an invalid object: %v", err)
	}
}

func TestRemoteRidesOutAServerThatIsAway(t *testing.T) {
	r, local, away, _ := remote(t)
	ctx := t.Context()
	clienttest.Create(t, local, configMap("stays", "1"))
	clienttest.Create(t, local, configMap("goes", "1"))
	w, err := clienttest.Watch[*corev1.ConfigMap](ctx, r, client.ListOptions{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	until(t, w, "stays", "1")
	away(true)
	if cm, err := client.Get[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "stays"}); err != nil || cm.Data["k"] != "1" {
		t.Errorf("a read while the server is away: %v %v", err, cm)
	}
	if _, err := r.Create(ctx, configMap("new", "1")); err == nil {
		t.Error("a write succeeded without a server")
	}
	if err := client.Delete[*corev1.ConfigMap](ctx, local, api.Key{Namespace: "default", Name: "goes"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Mutate(ctx, local, api.Key{Namespace: "default", Name: "stays"}, "", func(c *corev1.ConfigMap) bool { c.Data["k"] = "2"; return true }); err != nil {
		t.Fatal(err)
	}
	away(false)
	until(t, w, "stays", "2")
	if _, err := client.Get[*corev1.ConfigMap](ctx, r, api.Key{Namespace: "default", Name: "goes"}); !apierrors.IsNotFound(err) {
		t.Errorf("what was deleted meanwhile: %v", err)
	}
}

func TestRemoteSelections(t *testing.T) {
	r, local, _, _ := remote(t)
	ctx := t.Context()
	for _, name := range []string{"a", "b"} {
		clienttest.Create(t, local, &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
			AddressType: discoveryv1.AddressTypeIPv4})
		clienttest.Create(t, local, configMap(name, "1"))
	}
	byService := client.ListOptions{Index: client.IndexService, Value: "default/b"}
	check := func(when string) {
		t.Helper()
		list, err := client.List[*discoveryv1.EndpointSlice](ctx, r, byService)
		if err != nil || len(list) != 1 || list[0].Name != "b" {
			t.Errorf("slices of one service, %s: %v %d", when, err, len(list))
		}
	}
	check("unwatched")
	all, err := clienttest.Watch[*discoveryv1.EndpointSlice](ctx, r, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Stop()
	check("watched")
	one, err := clienttest.Watch[*corev1.ConfigMap](ctx, r, client.ListOptions{Namespace: "default", Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Stop()
	b, err := one.Next(ctx)
	if err != nil || !b.Full || len(b.Events) != 1 || b.Events[0].Object.GetName() != "b" {
		t.Errorf("a watch of one object: %v %v", err, b)
	}
	if list, err := client.List[*corev1.ConfigMap](ctx, r, client.ListOptions{Namespace: "default"}); err != nil || len(list) != 2 {
		t.Errorf("a wider list than what is watched: %v %d", err, len(list))
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := one.Next(stopped); err == nil {
		t.Error("a cancelled Next returned events")
	}
}

// TestRemoteKeepsPodsThatAreNotWholeApart: who watches the reach of all pods does not make others see pods without the rest.
func TestRemoteKeepsPodsThatAreNotWholeApart(t *testing.T) {
	r, local, _, gets := remote(t)
	ctx := t.Context()
	clienttest.Create(t, local, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	w, err := clienttest.Watch[*corev1.Pod](ctx, r, client.ListOptions{OnlyReach: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if b, err := w.Next(ctx); err != nil || len(b.Events) != 1 {
		t.Fatalf("%v %v", b, err)
	}
	before := gets.Load()
	if _, err := client.Get[*corev1.Pod](ctx, r, api.Key{Namespace: "default", Name: "p"}); err != nil || gets.Load() != before+1 {
		t.Errorf("get: %v, %d requests", err, gets.Load()-before)
	}
	if pods, err := client.List[*corev1.Pod](ctx, r, client.ListOptions{}); err != nil || len(pods) != 1 || gets.Load() != before+2 {
		t.Errorf("list: %v %v, %d requests", pods, err, gets.Load()-before)
	}
	if _, err := client.Get[*corev1.Pod](ctx, r, api.Key{Namespace: "default", Name: "none"}); !apierrors.IsNotFound(err) || gets.Load() != before+3 {
		t.Errorf("get of none: %v, %d requests", err, gets.Load()-before)
	}
}
