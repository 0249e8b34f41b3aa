package agentlink

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func (fake) ServeNode(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/broken" {
		_, _ = io.WriteString(w, "the beginning")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
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
