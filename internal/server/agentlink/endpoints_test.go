package agentlink

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func (fake) ServeNode(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/broken" {
		_, _ = io.WriteString(w, "the beginning")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	if r.URL.Path == "/pushes" {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "a push\n")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		return
	}
	if r.URL.Path != "/stats/summary" {
		http.Error(w, "nothing at "+r.URL.Path, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/x-figures")
	_, _ = io.WriteString(w, "figures for "+r.URL.RawQuery)
}

func TestEndpoints(t *testing.T) {
	hub, _ := connect(t)
	n, err := hub.Node("n")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path string) (int, string, string) {
		w := httptest.NewRecorder()
		n.ServeNode(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Header().Get("Content-Type"), w.Body.String()
	}
	if code, kind, body := ask("/stats/summary?a=b"); code != 200 || kind != "text/x-figures" || body != "figures for a=b" {
		t.Errorf("%d %s %q", code, kind, body)
	}
	if code, _, body := ask("/other"); code != 404 || !strings.Contains(body, "nothing at /other") {
		t.Errorf("%d %q", code, body)
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("an answer that breaks off looks like the whole: %v", p)
		}
	}()
	ask("/broken")
}

// told is a writer of an answer that passes on when something of it has come.
type told struct {
	*httptest.ResponseRecorder
	came chan struct{}
}

func (w told) Write(b []byte) (int, error) {
	select {
	case w.came <- struct{}{}:
	default:
	}
	return w.ResponseRecorder.Write(b)
}

// TestWhatANodePushesComesAtOnce: an answer that does not end is passed on as it comes, until who asked goes.
func TestWhatANodePushesComesAtOnce(t *testing.T) {
	hub, _ := connect(t)
	n, err := hub.Node("n")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := told{httptest.NewRecorder(), make(chan struct{}, 1)}
	ended := make(chan any)
	go func() {
		defer func() { ended <- recover() }()
		n.ServeNode(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/pushes", nil))
	}()
	for range 3 {
		<-w.came
	}
	cancel()
	if p := <-ended; p != nil && p != http.ErrAbortHandler {
		t.Errorf("it ended with %v", p)
	}
	if got := w.Body.String(); !strings.HasPrefix(got, "a push\na push\n") {
		t.Errorf("what came is %q", got)
	}
}
