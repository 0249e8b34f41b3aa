package connect

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// exec runs a command in a container and connects the client with it.
func (n *Connector) exec(c *call.Call) error {
	opts := &corev1.PodExecOptions{}
	if err := c.Parameters(opts); err != nil {
		return err
	}
	if err := n.admit(c, opts); err != nil {
		return err
	}
	pod, err := n.connectable(c, &opts.Container)
	if err != nil {
		return err
	}
	if len(opts.Command) == 0 {
		return apierrors.NewBadRequest("you must specify at least 1 command for the container")
	}
	opts.Stderr = opts.Stderr && !opts.TTY // a terminal has one output
	return n.command(c, pod, stream.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, TTY: opts.TTY},
		func(ctx context.Context, s Streams) (*url.URL, error) { return s.ExecURL(ctx, api.KeyOf(pod), opts) })
}

// attach connects the client with a container's own process.
func (n *Connector) attach(c *call.Call) error {
	opts := &corev1.PodAttachOptions{}
	if err := c.Parameters(opts); err != nil {
		return err
	}
	if err := n.admit(c, opts); err != nil {
		return err
	}
	pod, err := n.connectable(c, &opts.Container)
	if err != nil {
		return err
	}
	opts.Stderr = opts.Stderr && !opts.TTY // a terminal has one output
	return n.command(c, pod, stream.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, TTY: opts.TTY},
		func(ctx context.Context, s Streams) (*url.URL, error) { return s.AttachURL(ctx, api.KeyOf(pod), opts) })
}

// command connects the client of an exec or attach with where the runtime serves it.
func (n *Connector) command(c *call.Call, pod *corev1.Pod, opts stream.Options, prepare func(context.Context, Streams) (*url.URL, error)) error {
	if !opts.Stdin && !opts.Stdout && !opts.Stderr {
		return apierrors.NewBadRequest("you must specify at least one of stdin, stdout, stderr")
	}
	return n.connect(c, pod, prepare, func(target stream.Target) error {
		if stream.Wants(c.R, stream.ProtocolV5) {
			return stream.Translate(c.W.ResponseWriter, c.R, target, opts, c.Log)
		}
		return stream.Relay(c.W.ResponseWriter, c.R, target)
	})
}

// portForward connects the client with ports of a pod.
func (n *Connector) portForward(c *call.Call) error {
	opts := &corev1.PodPortForwardOptions{}
	if err := c.Parameters(opts); err != nil {
		return err
	}
	if err := n.admit(c, opts); err != nil {
		return err
	}
	pod, err := n.connectable(c, nil)
	if err != nil {
		return err
	}
	return n.connect(c, pod, func(ctx context.Context, s Streams) (*url.URL, error) {
		return s.PortForwardURL(ctx, api.KeyOf(pod), opts)
	},
		func(target stream.Target) error {
			if stream.Wants(c.R, stream.ProtocolTunnel) {
				return stream.Tunnel(c.W.ResponseWriter, c.R, target)
			}
			return stream.Relay(c.W.ResponseWriter, c.R, target)
		})
}

// connectable returns the pod that the target names, checks that something runs in it, and fills in the container.
func (n *Connector) connectable(c *call.Call, container *string) (*corev1.Pod, error) {
	pod, err := n.pod(c)
	if err != nil {
		return nil, err
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil, apierrors.NewBadRequest("cannot connect to a container in a completed pod; current phase is " + string(pod.Status.Phase))
	}
	if container != nil {
		if *container, err = containerOf(pod, *container); err != nil {
			return nil, err
		}
	}
	return pod, nil
}

// connect asks the node, and hands the connection over. Once it has been, nothing more can be answered.
func (n *Connector) connect(c *call.Call, pod *corev1.Pod, prepare func(context.Context, Streams) (*url.URL, error), serve func(stream.Target) error) error {
	if c.R.Header.Get("Upgrade") == "" {
		return apierrors.NewBadRequest("Upgrade request required")
	}
	if c.R.ProtoMajor != 1 {
		return apierrors.NewBadRequest("this needs a connection of its own: use HTTP/1.1, with an upgrade to WebSocket or SPDY")
	}
	s, err := n.streams(c, pod)
	if err != nil {
		return err
	}
	u, err := prepare(c.R.Context(), s)
	if err != nil {
		return nodeError(err)
	}
	target := stream.Target{URL: u}
	if d, ok := s.(DialledStreams); ok {
		target.Dial = func(ctx context.Context) (net.Conn, error) { return d.DialStream(ctx, u) }
	}
	c.W.Header().Del("Warning")
	err = serve(target)
	if stream.Refused(err) {
		return nodeError(err)
	}
	c.W.Code = http.StatusSwitchingProtocols
	if err != nil && !strings.Contains(err.Error(), "use of closed network connection") {
		c.Log.Debug("a stream broke", "path", c.R.URL.Path, "err", err)
	}
	return nil
}
