package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// tape is the answer to a watch, as far as it has come.
type tape struct {
	mu     sync.Mutex
	header http.Header
	text   strings.Builder
}

func (w *tape) Header() http.Header { return w.header }
func (w *tape) WriteHeader(int)     {}
func (w *tape) Flush()              {}

func (w *tape) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(b)
}

// take returns what has come since the last call, one event a line: its type, name and annotations.
func (w *tape) take(t *testing.T) string {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for line := range strings.Lines(w.text.String()) {
		var e struct {
			Type   string
			Object struct {
				Metadata struct{ Name, ResourceVersion string }
				Code     int
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		switch {
		case e.Object.Code != 0:
			out = append(out, e.Type+" 410")
		case e.Type == "BOOKMARK":
			out = append(out, "BOOKMARK "+e.Object.Metadata.ResourceVersion)
		default:
			out = append(out, e.Type+" "+e.Object.Metadata.Name)
		}
	}
	w.text.Reset()
	return strings.Join(out, ", ")
}

// TestWatchOverTime follows watches through an hour.
func TestWatchOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, reg := clienttest.NewRegistry(t)
		s := server.New(server.Config{Registry: reg, Authenticator: byHeader{}, Authorizer: authz.Union{authz.Masters{}}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch := func(path string) (*tape, chan struct{}) {
			w, done := &tape{header: http.Header{}}, make(chan struct{})
			go func() {
				defer close(done)
				s.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
			}()
			synctest.Wait()
			return w, done
		}
		began := time.Now()
		check := func(w *tape, want string) {
			t.Helper()
			synctest.Wait()
			if got := w.take(t); got != want {
				t.Errorf("after %s: got %q, want %q", time.Since(began), got, want)
			}
		}
		empty := reg.Revision()
		clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Labels: map[string]string{"x": "y"}}})

		quiet, _ := watch(configMaps + "?watch=true")
		marked, markedDone := watch(configMaps + "?watch=true&allowWatchBookmarks=true&timeoutSeconds=600")
		chosen, _ := watch(configMaps + "?watch=true&labelSelector=x%3Dy")
		for _, w := range []*tape{quiet, marked, chosen} {
			check(w, "ADDED a")
		}
		// Somewhere else something happens: only bookmarks tell.
		other := clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
		<-time.After(time.Minute)
		check(quiet, "")
		check(marked, "BOOKMARK "+other.ResourceVersion)
		<-time.After(5 * time.Minute)
		check(marked, "") // nothing new to tell
		// Leaving the selection is a deletion for whoever watches it.
		if _, err := c.Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}, ""); err != nil {
			t.Fatal(err)
		}
		check(quiet, "MODIFIED a")
		check(chosen, "DELETED a")
		<-time.After(5 * time.Minute)
		select {
		case <-markedDone:
		default:
			t.Error("a watch outlives the timeout that its client asked for")
		}
		<-time.After(time.Hour)
		again, _ := watch(configMaps + "?watch=true&resourceVersion=" + empty)
		check(again, "ADDED a, MODIFIED a")
		// The past of events is short; who comes too late is told so.
		var many []api.Object
		for i := range 1100 {
			many = append(many, &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("e", i)}, InvolvedObject: corev1.ObjectReference{Namespace: "default"}})
		}
		for _, r := range c.CreateMany(ctx, many) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		late, lateDone := watch("/api/v1/namespaces/default/events?watch=true&resourceVersion=1")
		check(late, "ERROR 410")
		<-lateDone
	})
}
