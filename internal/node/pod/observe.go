package pod

import (
	"context"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// observe returns what the runtime shows of the pod: what is known, or a new look. ok is false where the runtime cannot be asked; the
// worker is woken later then.
func (w *Worker) observe(ctx context.Context) (obs *lifecycle.Observed, ok bool) {
	w.mu.Lock()
	if w.seen.now != nil {
		defer w.mu.Unlock()
		return w.seen.now, true
	}
	if w.set.unlisted() {
		// Wait for the runtime: relist wakes every worker.
		w.mu.Unlock()
		return nil, false
	}
	looks := w.seen.epoch
	w.mu.Unlock()
	obs, err := w.Look(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		switch {
		case ctx.Err() != nil:
		case runtime.IsUnavailable(err):
			w.later(10 * time.Second) // its return wakes every worker; this is in case only this call was lost
		default:
			w.host.Log.Warn("looking at a pod in the runtime failed, trying again", "pod", w.key, "err", err)
			w.later(time.Second)
		}
		return nil, false
	}
	w.seen.latest = obs
	if w.seen.epoch == looks {
		w.seen.now = obs
	} else {
		w.turn.pending = true // it changed meanwhile; this look is good for one step
	}
	return obs, true
}

// Look asks the runtime for the pod's sandboxes and containers.
func (w *Worker) Look(ctx context.Context) (*lifecycle.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	rt := w.host.Runtime
	ids, err := w.sandboxIDs(ctx)
	if err != nil {
		return nil, err
	}
	obs := &lifecycle.Observed{}
	var containers []*cri.Container
	for _, id := range ids {
		st, err := rt.PodSandboxStatus(ctx, id)
		if runtime.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		obs.Sandboxes = append(obs.Sandboxes, lifecycle.FromSandbox(st))
		list, err := rt.ListContainers(ctx, &cri.ContainerFilter{PodSandboxId: id})
		if err != nil {
			return nil, err
		}
		containers = append(containers, list...)
	}
	for _, c := range containers {
		st, err := rt.ContainerStatus(ctx, c.Id)
		if runtime.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		oc := lifecycle.FromStatus(st, c.PodSandboxId)
		if oc.State == lifecycle.Exited {
			oc.Message = w.message(st, &oc)
		}
		obs.Containers = append(obs.Containers, oc)
	}
	obs.Sort()
	return obs, nil
}

// sandboxIDs returns the pod's sandboxes: those known, or, for a pod that this agent has not looked at yet or whose last sandbox failed half
// way, those that bear its label. Asking by ID keeps the cost of a look independent of how many pods the node has.
func (w *Worker) sandboxIDs(ctx context.Context) ([]string, error) {
	w.mu.Lock()
	known := w.seen.sandboxes
	w.mu.Unlock()
	if known != nil {
		return known, nil
	}
	list, err := w.host.Runtime.ListPodSandbox(ctx, &cri.PodSandboxFilter{LabelSelector: map[string]string{lifecycle.LabelPodUID: string(w.uid)}})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.Id
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.sandboxes = ids
	return ids, nil
}

// message returns the termination message of a run: what it wrote to its file, or, if its policy says so and it failed, the end of its
// log; else what the runtime says.
func (w *Worker) message(st *cri.ContainerStatus, c *lifecycle.Container) string {
	w.mu.Lock()
	m, ok := w.seen.messages[c.ID]
	if !ok {
		m, ok = w.reportedMessage(c.ID)
	}
	w.mu.Unlock()
	if ok {
		return m
	}
	m = w.host.Volumes.Message(string(w.uid), c.Name, c.Attempt)
	if m == "" && c.ExitCode != 0 && st.Annotations[lifecycle.AnnotationMessagePolicy] == string(corev1.TerminationMessageFallbackToLogsOnError) {
		m = logs.Tail(st.LogPath, 80, 2048)
	}
	if m == "" {
		m = st.Message
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.messages == nil {
		w.seen.messages = map[string]string{}
	}
	w.seen.messages[c.ID] = m
	return m
}

// reportedMessage finds the message of a run in the status reported before, for an agent that was restarted after the files were removed.
func (w *Worker) reportedMessage(id string) (string, bool) {
	for _, list := range [][]corev1.ContainerStatus{w.pod.Status.InitContainerStatuses, w.pod.Status.ContainerStatuses, w.pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			for _, s := range []*corev1.ContainerState{&list[i].State, &list[i].LastTerminationState} {
				if t := s.Terminated; t != nil && t.ContainerID == w.node().ContainerID(id) && t.Message != "" {
					return t.Message, true
				}
			}
		}
	}
	return "", false
}

// LogPath returns the log of one run.
func (w *Worker) LogPath(name string, attempt int32) string {
	return filepath.Join(w.logDirectory(), podspec.LogPath(name, attempt))
}

func (w *Worker) logDirectory() string {
	return podspec.LogDirectory(w.host.Node.LogDir, w.key.Namespace, w.key.Name, string(w.uid))
}

// container returns the spec of the container named, of whichever kind. w.mu must be held.
func (w *Worker) container(name string) *corev1.Container { return podspec.FindContainer(w.pod, name) }
