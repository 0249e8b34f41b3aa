package connect

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
)

// nodeProxy passes a request on to a node's agent.
func (n *Connector) nodeProxy(c *call.Call, portName string) error {
	if portName != "" && portName != call.KubeletPort {
		return apierrors.NewBadRequest(fmt.Sprintf("the API server reaches the agent of a node (port %s) and no other port: nodes/%s:%s", call.KubeletPort, c.Target.Name, portName))
	}
	if c.R.Method != http.MethodGet && c.R.Method != http.MethodHead {
		return apierrors.NewMethodNotSupported(api.Nodes.GroupResource(), c.Target.Verb) // an agent is read from, and written to by nobody
	}
	if _, err := n.cfg.Registry.Get(c.R.Context(), api.Nodes, c.Target.Key()); err != nil {
		return err
	}
	node, err := n.Endpoints(c.R.Context(), c.Target.Name)
	if err != nil {
		return err
	}
	r := c.R.Clone(c.R.Context())
	prefix, path := throughPath(c)
	r.URL = &url.URL{Path: path, RawQuery: c.R.URL.RawQuery}
	r.RequestURI = ""
	node.ServeNode(&movedThere{ResponseWriter: c.W, asked: r.URL, prefix: prefix}, r)
	return nil
}

// movedThere lets the redirects of a node lead through the proxy again.
type movedThere struct {
	http.ResponseWriter
	asked  *url.URL
	prefix string
}

// WriteHeader implements http.ResponseWriter.
func (w *movedThere) WriteHeader(code int) {
	if to := w.Header().Get("Location"); to != "" {
		w.Header().Set("Location", throughProxy(to, w.asked, w.prefix))
	}
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (w *movedThere) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Endpoints returns the way to what a node answers for itself.
func (n *Connector) Endpoints(ctx context.Context, name string) (NodeEndpoints, error) {
	if n.cfg.Streams == nil {
		return nil, apierrors.NewServiceUnavailable("this server has no way to nodes")
	}
	streams, err := n.cfg.Streams(ctx, name)
	if err != nil {
		return nil, err
	}
	node, ok := streams.(NodeEndpoints)
	if !ok {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of node %q does not answer for itself", name))
	}
	return node, nil
}
