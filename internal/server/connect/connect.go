// Package connect connects clients with what runs on nodes: exec, attach and port-forward, logs, and the proxies to pods,
// services and agents.
//
// What flows through it: a call for such a subresource, already authorized, is matched with its pod, service or node in the
// registry; admission is asked; then the way to the node ([Config.Streams]) or a connection to the pod network is handed to the
// client. What must stay true: nobody's credentials reach what is connected to; errors before the first byte are API
// statuses; addresses of the machine itself are refused, whatever a pod's status claims. Tests: TestMoveLinks;
// TestProxy (internal/server).
package connect

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// Config is what a Connector works with. Registry is required.
type Config struct {
	Registry *registry.Registry
	// Streams returns the way to the containers of a node; nil answers everything but the proxies of pods and services with
	// 503.
	Streams func(ctx context.Context, node string) (Streams, error)
	// Dial connects to an address of the pod network; nil means the network of this machine.
	Dial DialFunc
}

// DialFunc connects to an address of the pod network.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Streams is the way to the containers of one node: the agent's, directly or over its connection.
type Streams interface {
	// Logs writes a container's log to w until its end, or, where opts follow, until ctx ends.
	Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, w io.Writer) error
	// ExecURL, AttachURL and PortForwardURL prepare a stream and return where the runtime serves it, once.
	ExecURL(ctx context.Context, key api.Key, opts *corev1.PodExecOptions) (*url.URL, error)
	AttachURL(ctx context.Context, key api.Key, opts *corev1.PodAttachOptions) (*url.URL, error)
	PortForwardURL(ctx context.Context, key api.Key, opts *corev1.PodPortForwardOptions) (*url.URL, error)
}

// NodeEndpoints are Streams of a node that also answers for itself: stats, metrics, health, as a kubelet does on its port.
type NodeEndpoints interface {
	Streams
	ServeNode(w http.ResponseWriter, r *http.Request)
}

// DialledStreams are Streams that connect to their URLs themselves, as only they know the way, or whom to trust there. To the
// URLs of any other the server connects as [stream.Dial] does without a certificate.
type DialledStreams interface {
	Streams
	// DialStream connects to where a URL leads that one of the other methods has just returned.
	DialStream(ctx context.Context, u *url.URL) (net.Conn, error)
}

// Connector answers the subresources that connect to something.
type Connector struct{ cfg Config }

// New returns a Connector.
func New(cfg Config) *Connector {
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	return &Connector{cfg: cfg}
}

// Serve answers a call whose target [call.Target.Connects].
func (n *Connector) Serve(c *call.Call) error {
	switch c.Target.Subresource {
	case "log":
		return n.logs(c)
	case "exec":
		return n.exec(c)
	case "attach":
		return n.attach(c)
	case "portforward":
		return n.portForward(c)
	case "proxy":
		return n.proxy(c)
	}
	return call.ErrNoPath()
}

// admit asks admission about a connection, which may change its options.
func (n *Connector) admit(c *call.Call, opts runtime.Object) error {
	a := &admission.Attributes{
		Operation: admission.Connect, Resource: c.Target.Res, Subresource: c.Target.Subresource, Key: c.Target.Key(), Connection: opts,
	}
	return n.cfg.Registry.Admit(c.R.Context(), a)
}
