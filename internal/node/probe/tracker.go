package probe

import (
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// Kind is one of a container's three probes.
type Kind int

// Probe kinds.
const (
	Startup Kind = iota
	Liveness
	Readiness
	kinds
)

func (k Kind) String() string { return [...]string{"startup", "liveness", "readiness"}[k] }

// Title is the kind as event messages begin with it.
func (k Kind) Title() string { return [...]string{"Startup", "Liveness", "Readiness"}[k] }

// Tracker follows the probes of one running container.
type Tracker struct {
	Name, ID  string
	startedAt time.Time
	stopping  bool
	health    lifecycle.Health
	probes    [kinds]state
}

type state struct {
	probe   *corev1.Probe
	next    time.Time
	running bool
	count   int32 // results in a row
	last    bool  // what they were
	any     bool
}

// Of returns the probe of kind k of a container, or nil.
func Of(c *corev1.Container, k Kind) *corev1.Probe {
	switch k {
	case Startup:
		return c.StartupProbe
	case Liveness:
		return c.LivenessProbe
	}
	return c.ReadinessProbe
}

// New returns the tracker of a running container, or nil if it has no probes.
func New(c *corev1.Container, id string, startedAt time.Time) *Tracker {
	if c.StartupProbe == nil && c.LivenessProbe == nil && c.ReadinessProbe == nil {
		return nil
	}
	t := &Tracker{Name: c.Name, ID: id, startedAt: startedAt}
	t.health = lifecycle.Health{Started: c.StartupProbe == nil, Ready: c.ReadinessProbe == nil}
	for k := Startup; k < kinds; k++ {
		p := Of(c, k)
		if p == nil {
			continue
		}
		t.probes[k] = state{probe: p, next: startedAt.Add(seconds(p.InitialDelaySeconds))}
	}
	return t
}

// spread moves first probes of many containers apart after the agent's own start, by up to a tenth of the period.
func spread(id string, k Kind, p *corev1.Probe) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(id))
	h.Write([]byte{byte(k)})
	return period(p) / 10 * time.Duration(h.Sum32()%100) / 100
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

func period(p *corev1.Probe) time.Duration {
	if p.PeriodSeconds <= 0 {
		return 10 * time.Second
	}
	return seconds(p.PeriodSeconds)
}

// Health returns what the probes say now.
func (t *Tracker) Health() lifecycle.Health { return t.health }

// Probe returns the probe of kind k.
func (t *Tracker) Probe(k Kind) *corev1.Probe { return t.probes[k].probe }

// SetStopping says whether the container is being stopped: then only its readiness is asked for, by which a Service learns whether it
// still serves (pod-lifecycle, "Pod termination").
func (t *Tracker) SetStopping(on bool) { t.stopping = on }

// active tells whether a probe runs at all now: liveness and readiness wait for startup, startup ends once it succeeded, and
// nothing is asked any more of a container that has failed.
func (t *Tracker) active(k Kind) bool {
	if t.probes[k].probe == nil || t.health.Failed != "" || t.stopping && k != Readiness {
		return false
	}
	if k == Startup {
		return !t.health.Started
	}
	return t.health.Started
}

// Due returns the probes to run now, which count as running until Result, and when the next one is due (zero: none).
func (t *Tracker) Due(now time.Time) (due []Kind, next time.Time) {
	for k := Startup; k < kinds; k++ {
		s := &t.probes[k]
		if !t.active(k) || s.running {
			continue
		}
		if !now.Before(s.next) {
			s.running = true
			due = append(due, k)
			continue
		}
		if next.IsZero() || s.next.Before(next) {
			next = s.next
		}
	}
	return due, next
}

// Result notes what a probe found at now, and tells whether the container's health changed.
func (t *Tracker) Result(k Kind, ok bool, now time.Time) (changed bool) {
	s := &t.probes[k]
	s.running = false
	// Keep the beat; a probe that took longer than its period is due again at once.
	s.next = s.next.Add(period(s.probe))
	if s.next.Before(now) {
		s.next = now
		if !ok {
			s.next = now.Add(period(s.probe))
		}
	}
	if s.any && s.last == ok {
		s.count++
	} else {
		s.any, s.last, s.count = true, ok, 1
	}
	threshold := s.probe.SuccessThreshold
	if !ok {
		threshold = s.probe.FailureThreshold
		if threshold <= 0 {
			threshold = 3
		}
	}
	if s.count < max(threshold, 1) || !t.active(k) {
		return false
	}
	before := t.health
	switch {
	case k == Startup && ok:
		t.health.Started = true
		t.afterStartup(now)
	case k == Readiness:
		t.health.Ready = ok
	case !ok:
		t.health.Failed = k.String()
	}
	return t.health != before
}

// afterStartup lets liveness and readiness probes begin.
func (t *Tracker) afterStartup(now time.Time) {
	for k := Liveness; k < kinds; k++ {
		if s := &t.probes[k]; s.probe != nil && s.next.Before(now) {
			s.next = now
		}
	}
}

// Inherit begins with the health that was told of the container before, by an agent that is gone.
func (t *Tracker) Inherit(started, ready bool, now time.Time) {
	if started && !t.health.Started {
		t.health.Started = true
		t.afterStartup(now)
	}
	if s := &t.probes[Readiness]; s.probe != nil && ready {
		t.health.Ready, s.any, s.last, s.count = true, true, true, 1
	}
	for k := Startup; k < kinds; k++ {
		if s := &t.probes[k]; s.probe != nil && s.next.Before(now) {
			s.next = now.Add(spread(t.ID, k, s.probe))
		}
	}
}
