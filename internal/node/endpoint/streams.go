package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// Logs writes a container's log to out.
func (e *Endpoint) Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, out io.Writer) error {
	w := e.Pods.Lookup(key)
	if w == nil {
		return apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	name, err := w.Pick(opts.Container)
	if err != nil {
		return err
	}
	obs, err := w.Look(ctx)
	if err != nil {
		return err
	}
	run := obs.Newest(name)
	if run != nil && run.State == lifecycle.Created {
		run = obs.Previous(name)
	}
	if opts.Previous && run != nil {
		newest := run.ID
		if run = obs.Previous(name); run != nil && run.ID == newest {
			run = nil
		}
		if run == nil {
			return apierrors.NewBadRequest(fmt.Sprintf("previous terminated container %q in pod %q not found", name, key.Name))
		}
	}
	if run == nil {
		return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, key.Name, w.WhyWaiting(name)))
	}
	id := run.ID
	done := func() bool {
		st, err := e.Runtime.ContainerStatus(ctx, id)
		return err != nil || st.State != cri.ContainerState_CONTAINER_RUNNING
	}
	err = logs.Copy(ctx, w.LogPath(name, run.Attempt), opts, time.Now(), out, done)
	if errors.Is(err, os.ErrNotExist) {
		return apierrors.NewNotFound(api.Pods.GroupResource(), fmt.Sprintf("%s (the log of container %s is gone)", key.Name, name))
	}
	return err
}

// runningContainer returns the ID of the running container that is meant.
func (e *Endpoint) runningContainer(ctx context.Context, key api.Key, container string) (string, error) {
	w := e.Pods.Lookup(key)
	if w == nil {
		return "", apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	name, err := w.Pick(container)
	if err != nil {
		return "", err
	}
	obs, err := w.Look(ctx)
	if err != nil {
		return "", err
	}
	run := obs.Newest(name)
	if run == nil || run.State != lifecycle.Running {
		return "", apierrors.NewBadRequest(fmt.Sprintf("unable to upgrade connection: container not found (%q): it is not running", name))
	}
	return run.ID, nil
}

// ExecURL returns where a command in a container is run.
func (e *Endpoint) ExecURL(ctx context.Context, key api.Key, o *corev1.PodExecOptions) (*url.URL, error) {
	id, err := e.runningContainer(ctx, key, o.Container)
	if err != nil {
		return nil, err
	}
	u, err := e.Runtime.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: o.Command, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY})
	return parsed(u, err)
}

// AttachURL returns where a container's main process is attached to.
func (e *Endpoint) AttachURL(ctx context.Context, key api.Key, o *corev1.PodAttachOptions) (*url.URL, error) {
	id, err := e.runningContainer(ctx, key, o.Container)
	if err != nil {
		return nil, err
	}
	u, err := e.Runtime.Attach(ctx, &cri.AttachRequest{ContainerId: id, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY})
	return parsed(u, err)
}

// PortForwardURL returns where connections to a pod's ports are made.
func (e *Endpoint) PortForwardURL(ctx context.Context, key api.Key, o *corev1.PodPortForwardOptions) (*url.URL, error) {
	w := e.Pods.Lookup(key)
	if w == nil {
		return nil, apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	obs, err := w.Look(ctx)
	if err != nil {
		return nil, err
	}
	sb := obs.Sandbox()
	if sb == nil || !sb.Ready {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unable to forward port because pod is not running: %s", key.Name))
	}
	u, err := e.Runtime.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: sb.ID, Port: o.Ports})
	return parsed(u, err)
}

// localStreams is a Runtime that serves some of its streams in this process.
type localStreams interface {
	Serves(u *url.URL) bool
	Dial(ctx context.Context) (net.Conn, error)
}

// DialStream connects to the runtime's streaming server, which has to show the certificate that the node knows it by, unless it is in this process.
func (e *Endpoint) DialStream(ctx context.Context, u *url.URL) (net.Conn, error) {
	if local, ok := e.Runtime.(localStreams); ok && local.Serves(u) {
		return local.Dial(ctx)
	}
	if e.StreamCertificate == nil {
		return stream.Dial(ctx, u, nil)
	}
	certificate := e.StreamCertificate()
	if certificate == nil {
		return nil, errors.New("the container runtime has not been ready yet")
	}
	return stream.Dial(ctx, u, certificate)
}

func parsed(u string, err error) (*url.URL, error) {
	if err != nil {
		return nil, err
	}
	return url.Parse(u)
}
