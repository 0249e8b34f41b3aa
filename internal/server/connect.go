package server

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// exec runs a command in a container and connects the client with it.
func (x *exchange) exec() error {
	opts := &corev1.PodExecOptions{}
	if err := x.parameters(opts); err != nil {
		return err
	}
	pod, err := x.connectable(&opts.Container)
	if err != nil {
		return err
	}
	if len(opts.Command) == 0 {
		return apierrors.NewBadRequest("you must specify at least 1 command for the container")
	}
	opts.Stderr = opts.Stderr && !opts.TTY // a terminal has one output
	return x.command(pod, stream.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, TTY: opts.TTY},
		func(ctx context.Context, s Streams) (*url.URL, error) { return s.ExecURL(ctx, api.KeyOf(pod), opts) })
}

// attach connects the client with a container's own process.
func (x *exchange) attach() error {
	opts := &corev1.PodAttachOptions{}
	if err := x.parameters(opts); err != nil {
		return err
	}
	pod, err := x.connectable(&opts.Container)
	if err != nil {
		return err
	}
	opts.Stderr = opts.Stderr && !opts.TTY // a terminal has one output
	return x.command(pod, stream.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, TTY: opts.TTY},
		func(ctx context.Context, s Streams) (*url.URL, error) { return s.AttachURL(ctx, api.KeyOf(pod), opts) })
}

// command connects the client of an exec or attach with where the runtime serves it.
func (x *exchange) command(pod *corev1.Pod, opts stream.Options, prepare func(context.Context, Streams) (*url.URL, error)) error {
	if !opts.Stdin && !opts.Stdout && !opts.Stderr {
		return apierrors.NewBadRequest("you must specify at least one of stdin, stdout, stderr")
	}
	return x.connect(pod, prepare, func(target stream.Target) error {
		if stream.Wants(x.r, stream.ProtocolV5) {
			return stream.Translate(x.w.ResponseWriter, x.r, target, opts, x.s.log)
		}
		return stream.Relay(x.w.ResponseWriter, x.r, target)
	})
}

// portForward connects the client with ports of a pod.
func (x *exchange) portForward() error {
	opts := &corev1.PodPortForwardOptions{}
	if err := x.parameters(opts); err != nil {
		return err
	}
	pod, err := x.connectable(nil)
	if err != nil {
		return err
	}
	return x.connect(pod, func(ctx context.Context, s Streams) (*url.URL, error) {
		return s.PortForwardURL(ctx, api.KeyOf(pod), opts)
	},
		func(target stream.Target) error {
			if stream.Wants(x.r, stream.ProtocolTunnel) {
				return stream.Tunnel(x.w.ResponseWriter, x.r, target)
			}
			return stream.Relay(x.w.ResponseWriter, x.r, target)
		})
}

// connectable returns the pod that the target names, checks that something runs in it, and fills in the container.
func (x *exchange) connectable(container *string) (*corev1.Pod, error) {
	pod, err := x.pod()
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

// connect asks admission and the node, and hands the connection over. Once it has been, nothing more can be answered.
func (x *exchange) connect(pod *corev1.Pod, prepare func(context.Context, Streams) (*url.URL, error), serve func(stream.Target) error) error {
	if x.r.Header.Get("Upgrade") == "" {
		return apierrors.NewBadRequest("Upgrade request required")
	}
	if x.r.ProtoMajor != 1 {
		return apierrors.NewBadRequest("this needs a connection of its own: use HTTP/1.1, with an upgrade to WebSocket or SPDY")
	}
	if err := x.admit(admission.Connect, nil, metav1.CreateOptions{}); err != nil {
		return err
	}
	s, err := x.streams(pod)
	if err != nil {
		return err
	}
	u, err := prepare(x.r.Context(), s)
	if err != nil {
		return nodeError(err)
	}
	target := stream.Target{URL: u}
	if d, ok := s.(DialledStreams); ok {
		target.Dial = func(ctx context.Context) (net.Conn, error) { return d.DialStream(ctx, u) }
	}
	x.w.Header().Del("Warning")
	err = serve(target)
	if stream.Refused(err) {
		return nodeError(err)
	}
	x.w.code = http.StatusSwitchingProtocols
	if err != nil && !strings.Contains(err.Error(), "use of closed network connection") {
		x.s.log.Debug("a stream broke", "path", x.r.URL.Path, "err", err)
	}
	return nil
}
