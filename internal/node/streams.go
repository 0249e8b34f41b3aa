package node

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
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// Streams is what the API server asks of a node on behalf of kubectl logs, exec, attach and port-forward. The URLs are those of the
// runtime's streaming server on this machine, each good for one connection.
type Streams interface {
	Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, w io.Writer) error
	ExecURL(ctx context.Context, key api.Key, opts *corev1.PodExecOptions) (*url.URL, error)
	AttachURL(ctx context.Context, key api.Key, opts *corev1.PodAttachOptions) (*url.URL, error)
	PortForwardURL(ctx context.Context, key api.Key, opts *corev1.PodPortForwardOptions) (*url.URL, error)
	// DialStream connects to one of those URLs, and makes sure that it is the runtime that answers.
	DialStream(ctx context.Context, u *url.URL) (net.Conn, error)
}

var _ Streams = (*Agent)(nil)

// Logs writes a container's log to out.
func (a *Agent) Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, out io.Writer) error {
	w := a.lookup(key)
	if w == nil {
		return apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	name, err := w.pick(opts.Container)
	if err != nil {
		return err
	}
	obs, err := w.look(ctx)
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
		return apierrors.NewBadRequest(fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, key.Name, w.whyWaiting(name)))
	}
	id := run.ID
	done := func() bool {
		st, err := a.rt.ContainerStatus(ctx, id)
		return err != nil || st.State != cri.ContainerState_CONTAINER_RUNNING
	}
	err = logs.Copy(ctx, w.logPath(name, run.Attempt), opts, time.Now(), out, done)
	if errors.Is(err, os.ErrNotExist) {
		return apierrors.NewNotFound(api.Pods.GroupResource(), fmt.Sprintf("%s (the log of container %s is gone)", key.Name, name))
	}
	return err
}

// pick returns the container that is meant: the one named, or the only one, or the default of the annotation.
func (w *worker) pick(name string) (string, error) {
	pod := w.podNow()
	if name == "" {
		if d := pod.Annotations["kubectl.kubernetes.io/default-container"]; d != "" && podspec.FindContainer(pod, d) != nil {
			return d, nil
		}
		if len(pod.Spec.Containers) != 1 {
			var names []string
			for i := range pod.Spec.Containers {
				names = append(names, pod.Spec.Containers[i].Name)
			}
			return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, names))
		}
		return pod.Spec.Containers[0].Name, nil
	}
	if podspec.FindContainer(pod, name) == nil {
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	return name, nil
}

func (w *worker) whyWaiting(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != nil {
		for _, list := range [][]corev1.ContainerStatus{w.last.InitContainerStatuses, w.last.ContainerStatuses, w.last.EphemeralContainerStatuses} {
			for i := range list {
				if s := list[i].State.Waiting; list[i].Name == name && s != nil {
					return s.Reason
				}
			}
		}
	}
	return lifecycle.ReasonContainerCreating
}

// runningContainer returns the ID of the running container that is meant.
func (a *Agent) runningContainer(ctx context.Context, key api.Key, container string) (string, error) {
	w := a.lookup(key)
	if w == nil {
		return "", apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	name, err := w.pick(container)
	if err != nil {
		return "", err
	}
	obs, err := w.look(ctx)
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
func (a *Agent) ExecURL(ctx context.Context, key api.Key, o *corev1.PodExecOptions) (*url.URL, error) {
	id, err := a.runningContainer(ctx, key, o.Container)
	if err != nil {
		return nil, err
	}
	u, err := a.rt.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: o.Command, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY})
	return parsed(u, err)
}

// AttachURL returns where a container's main process is attached to.
func (a *Agent) AttachURL(ctx context.Context, key api.Key, o *corev1.PodAttachOptions) (*url.URL, error) {
	id, err := a.runningContainer(ctx, key, o.Container)
	if err != nil {
		return nil, err
	}
	u, err := a.rt.Attach(ctx, &cri.AttachRequest{ContainerId: id, Tty: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr && !o.TTY})
	return parsed(u, err)
}

// PortForwardURL returns where connections to a pod's ports are made.
func (a *Agent) PortForwardURL(ctx context.Context, key api.Key, o *corev1.PodPortForwardOptions) (*url.URL, error) {
	w := a.lookup(key)
	if w == nil {
		return nil, apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	obs, err := w.look(ctx)
	if err != nil {
		return nil, err
	}
	sb := obs.Sandbox()
	if sb == nil || !sb.Ready {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("unable to forward port because pod is not running: %s", key.Name))
	}
	u, err := a.rt.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: sb.ID, Port: o.Ports})
	return parsed(u, err)
}

// DialStream connects to the runtime's streaming server, which has to show the certificate that the node knows it by.
func (a *Agent) DialStream(ctx context.Context, u *url.URL) (net.Conn, error) {
	if a.cfg.StreamCertificate == nil {
		return stream.Dial(ctx, u, nil)
	}
	certificate := a.cfg.StreamCertificate()
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
