package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// kubeletPort is the port that clients name when they mean the node's agent. Nothing listens there: agents only dial out.
const kubeletPort = "10250"

// nodeProxy passes a request on to a node's agent.
func (x *exchange) nodeProxy(portName string) error {
	if portName != "" && portName != kubeletPort {
		return apierrors.NewBadRequest(fmt.Sprintf("the API server reaches the agent of a node (port %s) and no other port: nodes/%s:%s", kubeletPort, x.t.Name, portName))
	}
	if err := x.admit(admission.Connect, nil, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := x.s.cfg.Registry.Get(x.r.Context(), api.Nodes, x.t.key()); err != nil {
		return err
	}
	node, err := x.s.endpoints(x, x.t.Name)
	if err != nil {
		return err
	}
	r := x.r.Clone(x.r.Context())
	r.URL = &url.URL{Path: "/" + x.t.Rest, RawQuery: x.r.URL.RawQuery}
	r.RequestURI = ""
	node.ServeNode(x.w, r)
	return nil
}

// endpoints returns the way to what a node tells about itself.
func (s *Server) endpoints(x *exchange, name string) (NodeEndpoints, error) {
	if s.cfg.Streams == nil {
		return nil, apierrors.NewServiceUnavailable("this server has no way to nodes")
	}
	streams, err := s.cfg.Streams(x.r.Context(), name)
	if err != nil {
		return nil, err
	}
	node, ok := streams.(NodeEndpoints)
	if !ok {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of node %q does not tell about itself", name))
	}
	return node, nil
}

// nodeRight tells whether a request for a node's proxy is allowed by a right that is narrower than nodes/proxy: nodes/stats,
// nodes/metrics and so on, which a kubelet accepts for the same paths (KEP-2862). It changes nothing of a.
func (x *exchange) nodeRight(a *authz.Attributes) bool {
	if a.Group != "" || a.Resource != "nodes" || a.Subresource != "proxy" || x.r.Method != http.MethodGet {
		return false
	}
	narrow := nodeSubresource(x.t.Rest)
	if narrow == "" {
		return false
	}
	b := *a
	b.Subresource = narrow
	b.Name = strings.TrimSuffix(b.Name, ":"+kubeletPort)
	d, _, err := x.s.cfg.Authorizer.Authorize(x.r.Context(), &b)
	return err == nil && d == authz.Allow
}

// nodeSubresource is what a kubelet calls a path of its own when it asks who may read it
// (https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/#kubelet-authorization).
func nodeSubresource(path string) string {
	root, _, _ := strings.Cut(path, "/")
	switch root {
	case "stats", "metrics", "pods", "healthz", "configz":
		return root
	case "containerLogs":
		return "log"
	}
	return ""
}
