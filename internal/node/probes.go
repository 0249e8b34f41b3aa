package node

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/probe"
)

// track follows the probes of the containers that run now, and forgets those of others. w.mu must be held.
func (w *worker) track(obs *lifecycle.Observed) {
	for id := range w.trackers {
		if c := obs.ByID(id); c == nil || c.State != lifecycle.Running {
			delete(w.trackers, id)
		}
	}
	for i := range obs.Containers {
		run := &obs.Containers[i]
		if run.State != lifecycle.Running || w.trackers[run.ID] != nil || !w.busy.Stopping[run.ID].IsZero() {
			continue
		}
		c := w.container(run.Name)
		if c == nil || w.mem.Container(run.Name).PostStart {
			continue
		}
		if t := probe.New(c, run.ID, run.StartedAt); t != nil {
			w.inherit(t, run)
			if w.trackers == nil {
				w.trackers = map[string]*probe.Tracker{}
			}
			w.trackers[run.ID] = t
		}
	}
}

// inherit keeps a container that was started and ready before the agent was restarted so, until its probes say otherwise: a restart of
// Knarr must not take pods out of their Services.
func (w *worker) inherit(t *probe.Tracker, run *lifecycle.Container) {
	if w.last != nil {
		return
	}
	for _, list := range [][]corev1.ContainerStatus{w.pod.Status.InitContainerStatuses, w.pod.Status.ContainerStatuses} {
		for i := range list {
			if s := &list[i]; s.ContainerID == "containerd://"+run.ID {
				t.Inherit(s.Started != nil && *s.Started, s.Ready, time.Now())
			}
		}
	}
}

// health returns what the probes say. w.mu must be held.
func (w *worker) health() map[string]lifecycle.Health {
	if len(w.trackers) == 0 {
		return nil
	}
	out := make(map[string]lifecycle.Health, len(w.trackers))
	for id, t := range w.trackers {
		out[id] = t.Health()
	}
	return out
}

// nextProbe starts the probes that are due and returns when the next one is. w.mu must be held.
func (w *worker) nextProbe(now time.Time) (next time.Time) {
	for id, t := range w.trackers {
		t.SetStopping(!w.busy.Stopping[id].IsZero())
		due, at := t.Due(now)
		for _, k := range due {
			w.runProbe(t, k)
		}
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (w *worker) runProbe(t *probe.Tracker, k probe.Kind) {
	pr, c := t.Probe(k), w.container(t.Name)
	if c == nil {
		return
	}
	target := probe.Target{ContainerID: t.ID, PodIP: w.podIP(), Container: c}
	w.a.tasks.Go(func() {
		ok, out := w.a.prober.Run(w.a.tasks.Context(), pr, target)
		if w.a.tasks.Context().Err() != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.trackers[t.ID] != t {
			return
		}
		if !ok && w.mem.Terminating.IsZero() {
			w.a.events.Warning(w.pod, t.Name, "Unhealthy", k.Title()+" probe failed: "+out)
		}
		if t.Result(k, ok, time.Now()) {
			w.notifyLocked()
			return
		}
		w.arm(time.Now())
	})
}

// podIP returns the address at which the pod is probed. w.mu must be held.
func (w *worker) podIP() string {
	if ips := w.podIPs(); len(ips) > 0 {
		return ips[0]
	}
	return ""
}

func (w *worker) podIPs() []string {
	if w.pod.Spec.HostNetwork {
		return w.a.cfg.NodeIPs
	}
	if w.obs != nil {
		if sb := w.obs.Sandbox(); sb != nil && len(sb.IPs) > 0 {
			return sb.IPs
		}
	}
	var out []string
	if w.last != nil {
		for _, ip := range w.last.PodIPs {
			out = append(out, ip.IP)
		}
	}
	return out
}
