package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/exchanged"
	"github.com/knarr-io/knarr/internal/server/call"
)

// logs streams a container's log as text.
func (n *Connector) logs(c *call.Call) error {
	opts := &corev1.PodLogOptions{}
	if err := c.Parameters(opts); err != nil {
		return err
	}
	api.Scheme.Default(opts)
	if errs := exchanged.Validate(opts); len(errs) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), c.Target.Name, errs)
	}
	pod, err := n.pod(c)
	if err != nil {
		return err
	}
	if opts.Container, err = containerOf(pod, opts.Container); err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		// Nothing has run yet, so there is nothing to print; Kubernetes answers likewise.
		c.W.Header().Set("Content-Type", "text/plain")
		c.W.WriteHeader(http.StatusOK)
		return nil
	}
	streams, err := n.streams(c, pod)
	if err != nil {
		return err
	}
	if wantsLogSocket(c.R) {
		ctx, cancel := context.WithCancel(c.R.Context())
		defer cancel()
		socket := &logSocket{c: c, gone: cancel}
		return socket.end(streams.Logs(ctx, api.KeyOf(pod), opts, socket))
	}
	out := &logWriter{c: c}
	if opts.Follow {
		out.control = http.NewResponseController(c.W)
	}
	err = streams.Logs(c.R.Context(), api.KeyOf(pod), opts, out)
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case err != nil && c.W.Code == 0:
		return nodeError(err)
	case err != nil:
		c.Log.Debug("a log ended early", "pod", api.KeyOf(pod), "container", opts.Container, "err", err)
		panic(http.ErrAbortHandler) // the client must see that this is not the end of the log
	case c.W.Code == 0:
		out.begin()
	}
	return nil
}

// nodeError passes on statuses and words everything else that a node says as a bad request, as Kubernetes does.
func nodeError(err error) error {
	var st apierrors.APIStatus
	if errors.As(err, &st) {
		return err
	}
	return apierrors.NewBadRequest(err.Error())
}

// logWriter begins the answer with the first bytes, so that errors before them can still be answered, and flushes a
// followed log line by line.
type logWriter struct {
	c       *call.Call
	control *http.ResponseController
}

func (w *logWriter) begin() {
	w.c.W.Header().Set("Content-Type", "text/plain")
	w.c.W.Header().Set("Cache-Control", "no-cache, private")
	w.c.W.WriteHeader(http.StatusOK)
}

func (w *logWriter) Write(b []byte) (int, error) {
	if w.c.W.Code == 0 {
		w.begin()
	}
	n, err := w.c.W.Write(b)
	if err == nil && w.control != nil {
		err = w.control.Flush()
	}
	return n, err
}

// pod returns the pod that the target names.
func (n *Connector) pod(c *call.Call) (*corev1.Pod, error) {
	rev, err := n.cfg.Registry.Get(c.R.Context(), api.Pods, c.Target.Key())
	if err != nil {
		return nil, err
	}
	return rev.Object.(*corev1.Pod), nil
}

// streams returns the way to the node that pod runs on.
func (n *Connector) streams(c *call.Call, pod *corev1.Pod) (Streams, error) {
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	if n.cfg.Streams == nil {
		return nil, apierrors.NewServiceUnavailable("this server has no way to its nodes")
	}
	s, err := n.cfg.Streams(c.R.Context(), pod.Spec.NodeName)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("node %q of pod %q cannot be reached: %v", pod.Spec.NodeName, pod.Name, err))
	}
	return s, nil
}

// containerOf checks the container that a request names, or finds the one that it means.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var all, inits, ephemeral []string
	for _, c := range pod.Spec.Containers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		inits = append(inits, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, c.Name)
	}
	for _, list := range [][]string{all, inits, ephemeral} {
		for _, n := range list {
			if n == name {
				return name, nil
			}
		}
	}
	if name != "" {
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	if len(all) == 1 {
		return all[0], nil
	}
	msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(all, " "))
	if len(inits) > 0 {
		msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(inits, " "))
	}
	return "", apierrors.NewBadRequest(msg)
}

// port reads a port number of a proxy path.
func port(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0 && n < 65536
}
