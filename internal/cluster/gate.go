package cluster

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/pki"
)

// Gate stands before the API. It hands requests of the other servers to etcd, and lets nobody in while the API is not ready or this server is
// cut off from the others; when it is cut off, it ends what is under way, so that clients and agents go elsewhere.
type Gate struct {
	// Peers answers the other servers' etcds; nil where there are none.
	Peers http.Handler
	// Contact and Several are the datastore's.
	Contact *Contact
	Several func() bool
	// Ready is closed when API may answer.
	Ready <-chan struct{}
	API   http.Handler
}

const (
	// startPatience is how long a request waits for a server that is starting.
	startPatience = 3 * time.Second
	// peerPatience is how long another server may leave what it is sent unread: as etcd's own listeners have it.
	peerPatience = 5 * time.Second
)

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case pki.IsPeer(r.TLS):
		if g.Peers == nil {
			http.NotFound(w, r)
			return
		}
		g.Peers.ServeHTTP(&peerWriter{ResponseWriter: w, control: http.NewResponseController(w)}, r)
		return
	case aboutItself(r.URL.Path):
		g.API.ServeHTTP(w, r)
		return
	}
	if !g.started(r.Context()) {
		refuse(w, "this server is starting; it may be waiting for a majority of the cluster's servers")
		return
	}
	if !g.Several() {
		g.API.ServeHTTP(w, r)
		return
	}
	epoch, err := g.Contact.Epoch()
	if err != nil {
		refuse(w, err.Error())
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(epoch, cancel)()
	g.API.ServeHTTP(w, r.WithContext(ctx))
}

// aboutItself tells whether a path is about this server rather than the cluster.
func aboutItself(path string) bool {
	switch root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); root {
	case "livez", "readyz", "healthz":
		return true
	}
	return false
}

// started waits a little for the API to be ready.
func (g *Gate) started(ctx context.Context) bool {
	select {
	case <-g.Ready:
		return true
	default:
	}
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-g.Ready:
		return true
	case <-patience.C:
	case <-ctx.Done():
	}
	return false
}

// refuse answers 503 as the API does.
func refuse(w http.ResponseWriter, why string) {
	status := apierrors.NewServiceUnavailable(why).ErrStatus
	status.Kind, status.APIVersion = "Status", "v1"
	b, err := json.Marshal(status)
	if err != nil {
		b = nil // the code says it, too
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write(b) // a client that went away has no use for the error
}

// peerWriter gives up on a server that no longer reads: etcd would wait with all that follows.
type peerWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *peerWriter) Write(b []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(peerPatience)) // writers that know no deadline are those of tests
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *peerWriter) Flush() {
	_ = w.control.SetWriteDeadline(time.Now().Add(peerPatience))
	_ = w.control.Flush() // the next write tells of an error
}
