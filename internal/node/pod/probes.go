package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/probe"
)

// track follows the probes of the containers that run now, and forgets those of others. w.mu must be held.
func (w *Worker) track(obs *lifecycle.Observed) {
	for id := range w.probes {
		if c := obs.ByID(id); c == nil || c.State != lifecycle.Running {
			delete(w.probes, id)
		}
	}
	for i := range obs.Containers {
		run := &obs.Containers[i]
		if run.State != lifecycle.Running || w.probes[run.ID] != nil || !w.work.busy.Stopping[run.ID].IsZero() {
			continue
		}
		c := w.container(run.Name)
		if c == nil || w.mem.Container(run.Name).PostStart {
			continue
		}
		if t := probe.New(c, run.ID, run.StartedAt); t != nil {
			w.inherit(t, run)
			if w.probes == nil {
				w.probes = map[string]*probe.Tracker{}
			}
			w.probes[run.ID] = t
		}
	}
}

// inherit keeps a container that was started and ready before the agent was restarted so, until its probes say otherwise: a restart of
// Knarr must not take pods out of their Services.
func (w *Worker) inherit(t *probe.Tracker, run *lifecycle.Container) {
	if w.reported != nil {
		return
	}
	for _, list := range [][]corev1.ContainerStatus{w.pod.Status.InitContainerStatuses, w.pod.Status.ContainerStatuses} {
		for i := range list {
			if s := &list[i]; s.ContainerID == w.node().ContainerID(run.ID) {
				t.Inherit(s.Started != nil && *s.Started, s.Ready, time.Now())
			}
		}
	}
}

// health returns what the probes say. w.mu must be held.
func (w *Worker) health() map[string]lifecycle.Health {
	if len(w.probes) == 0 {
		return nil
	}
	out := make(map[string]lifecycle.Health, len(w.probes))
	for id, t := range w.probes {
		out[id] = t.Health()
	}
	return out
}

// nextProbe starts the probes that are due and returns when the next one is. w.mu must be held.
func (w *Worker) nextProbe(now time.Time) (next time.Time) {
	for id, t := range w.probes {
		t.SetStopping(!w.work.busy.Stopping[id].IsZero())
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

func (w *Worker) runProbe(t *probe.Tracker, k probe.Kind) {
	pr, c := t.Probe(k), w.container(t.Name)
	if c == nil {
		return
	}
	target := probe.Target{ContainerID: t.ID, PodIP: w.podIP(), Container: c}
	w.host.Tasks.Go(func() {
		began := time.Now()
		outcome, out := w.host.Prober.Run(w.host.Tasks.Context(), pr, target)
		if w.host.Tasks.Context().Err() != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.probes[t.ID] != t {
			return
		}
		w.host.Probes.Observe(w.pod, t.Name, k, outcome.OK(), time.Since(began))
		switch {
		case !w.mem.Terminating.IsZero():
		case outcome == probe.Failed:
			w.host.Events.Warning(w.pod, t.Name, "Unhealthy", k.Title()+" probe failed: "+out)
		case outcome == probe.Warned:
			w.host.Events.Warning(w.pod, t.Name, "ProbeWarning", k.Title()+" probe warning: "+out)
		}
		if t.Result(k, outcome.OK(), time.Now()) {
			w.notifyLocked()
			return
		}
		w.arm(time.Now())
	})
}

// podIP returns the address at which the pod is probed. w.mu must be held.
func (w *Worker) podIP() string {
	if ips := w.podIPs(); len(ips) > 0 {
		return ips[0]
	}
	return ""
}

func (w *Worker) podIPs() []string {
	if w.pod.Spec.HostNetwork {
		return w.host.Node.IPs
	}
	if w.seen.now != nil {
		if sb := w.seen.now.Sandbox(); sb != nil && len(sb.IPs) > 0 {
			return sb.IPs
		}
	}
	var out []string
	if w.reported != nil {
		for _, ip := range w.reported.PodIPs {
			out = append(out, ip.IP)
		}
	}
	return out
}
