package node

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// observe returns what the runtime shows of the pod: what is known, or a new look. ok is false where the runtime cannot be asked; the
// worker is woken later then.
func (w *worker) observe(ctx context.Context) (obs *lifecycle.Observed, ok bool) {
	w.mu.Lock()
	if w.obs != nil {
		defer w.mu.Unlock()
		return w.obs, true
	}
	if w.a.notListed() {
		// Wait for the runtime: relist wakes every worker.
		w.mu.Unlock()
		return nil, false
	}
	looks := w.looks
	w.mu.Unlock()
	obs, err := w.look(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		switch {
		case ctx.Err() != nil:
		case runtime.IsUnavailable(err):
			w.later(10 * time.Second) // its return wakes every worker; this is in case only this call was lost
		default:
			w.a.log.Warn("looking at a pod in the runtime failed, trying again", "pod", w.key, "err", err)
			w.later(time.Second)
		}
		return nil, false
	}
	w.shown = obs
	if w.looks == looks {
		w.obs = obs
	} else {
		w.pending = true // it changed meanwhile; this look is good for one step
	}
	return obs, true
}

func (a *Agent) notListed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.listed
}

// look asks the runtime for the pod's sandboxes and containers.
func (w *worker) look(ctx context.Context) (*lifecycle.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	rt := w.a.rt
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
func (w *worker) sandboxIDs(ctx context.Context) ([]string, error) {
	w.mu.Lock()
	known := w.known
	w.mu.Unlock()
	if known != nil {
		return known, nil
	}
	list, err := w.a.rt.ListPodSandbox(ctx, &cri.PodSandboxFilter{LabelSelector: map[string]string{lifecycle.LabelPodUID: string(w.uid)}})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.Id
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = ids
	return ids, nil
}

// message returns the termination message of a run: what it wrote to its file, or, if its policy says so and it failed, the end of its
// log; else what the runtime says.
func (w *worker) message(st *cri.ContainerStatus, c *lifecycle.Container) string {
	w.mu.Lock()
	m, ok := w.messages[c.ID]
	if !ok {
		m, ok = w.toldMessage(c.ID)
	}
	w.mu.Unlock()
	if ok {
		return m
	}
	m = w.a.volumes.Message(string(w.uid), c.Name, c.Attempt)
	if m == "" && c.ExitCode != 0 && st.Annotations[lifecycle.AnnotationMessagePolicy] == string(corev1.TerminationMessageFallbackToLogsOnError) {
		m = logs.Tail(st.LogPath, 80, 2048)
	}
	if m == "" {
		m = st.Message
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.messages == nil {
		w.messages = map[string]string{}
	}
	w.messages[c.ID] = m
	return m
}

// toldMessage finds the message of a run in the status told before, for an agent that was restarted after the files were removed.
func (w *worker) toldMessage(id string) (string, bool) {
	for _, list := range [][]corev1.ContainerStatus{w.pod.Status.InitContainerStatuses, w.pod.Status.ContainerStatuses, w.pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			for _, s := range []*corev1.ContainerState{&list[i].State, &list[i].LastTerminationState} {
				if t := s.Terminated; t != nil && t.ContainerID == "containerd://"+id && t.Message != "" {
					return t.Message, true
				}
			}
		}
	}
	return "", false
}

// logPath returns the log of one run.
func (w *worker) logPath(name string, attempt int32) string {
	return filepath.Join(w.logDirectory(), podspec.LogPath(name, attempt))
}

func (w *worker) logDirectory() string {
	return podspec.LogDirectory(w.a.cfg.logDir(), w.key.Namespace, w.key.Name, string(w.uid))
}

// container returns the spec of the container named, of whichever kind. w.mu must be held.
func (w *worker) container(name string) *corev1.Container { return podspec.FindContainer(w.pod, name) }

// newer tells whether resource version a comes after b. Versions are numbers (KEP-5504).
func newer(a, b string) bool {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	return err1 != nil || err2 != nil || x > y
}

func sameInt(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func sameMeta(a, b *corev1.Pod) bool {
	return sameMap(a.Labels, b.Labels) && sameMap(a.Annotations, b.Annotations)
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// sameForeign tells whether the parts of a status that others write are equal.
func sameForeign(a, b *corev1.PodStatus) bool {
	return apiequality.Semantic.DeepEqual(foreign(a), foreign(b))
}

func foreign(s *corev1.PodStatus) []corev1.PodCondition {
	var out []corev1.PodCondition
	for _, c := range s.Conditions {
		if !lifecycle.Owned(c.Type) {
			out = append(out, c)
		}
	}
	return out
}
