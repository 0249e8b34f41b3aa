package pod

import (
	"bytes"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/task"
)

// hook runs a life-cycle hook. A timeout of zero means none but ctx.
func (w *Worker) hook(ctx context.Context, h *corev1.LifecycleHandler, c *corev1.Container, id string, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	switch {
	case h.Exec != nil:
		r, err := w.host.Runtime.ExecSync(ctx, id, h.Exec.Command, timeout)
		if err != nil {
			return err
		}
		if r.ExitCode != 0 {
			return fmt.Errorf("command %q exited with %d: %s", h.Exec.Command, r.ExitCode, bytes.TrimSpace(append(r.Stderr, r.Stdout...)))
		}
		return nil
	case h.HTTPGet != nil:
		w.mu.Lock()
		t := probe.Target{ContainerID: id, PodIP: w.podIP(), Container: c}
		w.mu.Unlock()
		if timeout == 0 {
			timeout = time.Minute
		}
		code, _, err := w.host.Prober.Get(ctx, h.HTTPGet, timeout, t)
		if err == nil && (code < 200 || code >= 400) {
			err = fmt.Errorf("HTTP status %d", code)
		}
		return err
	case h.Sleep != nil:
		task.Pause(ctx, amount.Seconds(h.Sleep.Seconds))
		return nil
	}
	return fmt.Errorf("container %s: a hook needs exec, httpGet or sleep", c.Name)
}
