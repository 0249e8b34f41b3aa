package node

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// watchPods follows the node's pods in the API.
func (a *Agent) watchPods(ctx context.Context) {
	mine := client.ListOptions{Index: client.IndexNode, Value: a.cfg.NodeName}
	client.Follow(ctx, a.log, a.cfg.Client, api.Pods, mine, func(b client.Batch) {
		for _, e := range b.Events {
			if e.Type == client.Deleted {
				a.pods.Gone(e.Object.GetUID())
			} else {
				a.pods.Update(e.Object.(*corev1.Pod))
			}
		}
		if b.Full {
			seen := make(map[types.UID]bool, len(b.Events))
			for _, e := range b.Events {
				seen[e.Object.GetUID()] = true
			}
			a.pods.Synced(seen)
		}
	})
}

// watchRuntime follows the runtime's events; at the start and whenever the stream was lost, everything is looked at once.
func (a *Agent) watchRuntime(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		err := a.cfg.Runtime.Events(ctx, func() { r.Reset(); a.tasks.Go(func() { a.relist(ctx) }) }, a.runtimeEvent)
		if ctx.Err() == nil {
			a.log.Warn("runtime events were lost, trying again", "err", err)
			r.Wait(ctx)
		}
	}
}

// runtimeEvent wakes the worker of a container that ended or vanished. What the agent itself created or started it knows.
func (a *Agent) runtimeEvent(e *runtime.Event) {
	switch e.ContainerEventType {
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT, cri.ContainerEventType_CONTAINER_DELETED_EVENT:
	default:
		return
	}
	var uid types.UID
	if s := e.PodSandboxStatus; s != nil && s.Metadata != nil {
		uid = types.UID(s.Metadata.Uid)
	}
	a.pods.Changed(uid, e.ContainerId)
}

// relist takes everything that the runtime has.
func (a *Agent) relist(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		found, err := a.listRuntime(ctx)
		if err != nil {
			a.log.Warn("listing the runtime's pods failed, trying again", "err", err)
			r.Wait(ctx)
			continue
		}
		if cidrs := strings.Join(a.cfg.PodCIDRs, ","); cidrs != "" {
			if err := task.Quiet(ctx, a.cfg.Runtime.UpdateRuntimeConfig(ctx, cidrs)); err != nil {
				a.log.Warn("giving the runtime the pod CIDR failed", "err", err)
			}
		}
		a.pods.Listed(found)
		return
	}
}

// listRuntime asks the runtime for its name, what it can do, and its pods.
func (a *Agent) listRuntime(ctx context.Context) (*pod.Listing, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	v, err := a.cfg.Runtime.Version(ctx)
	if err != nil {
		return nil, err
	}
	st, err := a.cfg.Runtime.Status(ctx)
	if err != nil {
		return nil, err
	}
	sandboxes, err := a.cfg.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	handlers := st.GetRuntimeHandlers()
	out := &pod.Listing{Runtime: v.RuntimeName, Pods: map[types.UID]api.Key{}, RecursiveReadOnly: len(handlers) > 0 &&
		!slices.ContainsFunc(handlers, func(h *cri.RuntimeHandler) bool { return !h.GetFeatures().GetRecursiveReadOnlyMounts() })}
	for _, s := range sandboxes {
		if uid := s.Labels[lifecycle.LabelPodUID]; uid != "" {
			out.Pods[types.UID(uid)] = api.Key{Namespace: s.Labels[lifecycle.LabelPodNamespace], Name: s.Labels[lifecycle.LabelPodName]}
		}
	}
	return out, nil
}
