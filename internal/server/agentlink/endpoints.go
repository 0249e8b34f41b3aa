package agentlink

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// endpointsPath is below what the server asks for that a node tells about itself: stats, metrics, health.
const endpointsPath = "/node/"

// Endpoints are an agent that tells about its node; node.Agent is one.
type Endpoints interface {
	ServeNode(w http.ResponseWriter, r *http.Request)
}

// serveEndpoints lets the agent answer.
func serveEndpoints(w http.ResponseWriter, r *http.Request, agent Agent) {
	node, ok := agent.(Endpoints)
	if !ok {
		writeError(w, apierrors.NewServiceUnavailable("the agent does not tell about its node"))
		return
	}
	to := r.Clone(r.Context())
	to.URL = &url.URL{Path: "/" + strings.TrimPrefix(r.URL.Path, endpointsPath), RawQuery: r.URL.RawQuery}
	to.RequestURI = ""
	node.ServeNode(w, to)
}

// ServeNode passes on what the agent answers to a request for what its node tells about itself. It implements server.NodeEndpoints.
func (n *Node) ServeNode(w http.ResponseWriter, r *http.Request) {
	u := url.URL{Scheme: "http", Host: "agent", Path: endpointsPath + strings.TrimPrefix(r.URL.Path, "/"), RawQuery: r.URL.RawQuery}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), nil)
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	resp, err := n.link.h2.RoundTrip(req)
	if err != nil {
		writeError(w, apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of node %q did not answer: %v", n.link.node, err)))
		return
	}
	defer resp.Body.Close()
	if t := resp.Header.Get("Content-Type"); t != "" {
		w.Header().Set("Content-Type", t)
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(&flushed{w: w, flush: http.NewResponseController(w).Flush}, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // the client must see that this is not the end
	}
}
