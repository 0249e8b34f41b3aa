package podautoscaler

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

const (
	// defaultTolerance is how far usage may be from its target before anything happens.
	defaultTolerance = 0.1
	// initialization is how long after its start the processor time of a pod may be that of its start.
	initialization = 5 * time.Minute
	// firstReadiness is how long after its start a pod that is not ready counts as one that never was.
	firstReadiness = 30 * time.Second
)

var (
	errNoPods    = errors.New("no pods returned by selector while calculating replica count")
	errNoFigures = errors.New("did not receive metrics for targeted pods (pods might be unready)")
)

// figure is what was measured of one pod, in thousandths.
type figure struct {
	value  int64
	at     time.Time
	window time.Duration
}

// tolerances are how far below and above its target usage may be.
type tolerances struct{ down, up float64 }

func tolerancesOf(hpa *autoscalingv2.HorizontalPodAutoscaler) tolerances {
	t := tolerances{defaultTolerance, defaultTolerance}
	if b := hpa.Spec.Behavior; b != nil {
		if b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
			t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
		}
		if b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
			t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
		}
	}
	return t
}

// hold reports whether usage in this ratio to its target leaves everything as it is.
func (t tolerances) hold(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// target is what an average over pods is compared with: a value, or a percentage of what the pods request.
type target struct {
	average  int64
	percent  int32
	requests map[string]int64 // for a percentage
	unknown  error            // why there are no requests, where they are needed
}

// usage is what an average is.
type usage struct {
	ratio   float64 // to the target
	average int64
	percent int32
}

func (t target) compare(figures map[string]figure) (usage, error) {
	if len(figures) == 0 {
		return usage{}, errNoFigures
	}
	if t.unknown != nil {
		return usage{}, t.unknown
	}
	var sum, requested, n int64
	for name, f := range figures {
		if t.requests != nil {
			request, ok := t.requests[name]
			if !ok {
				continue
			}
			requested += request
		}
		sum += f.value
		n++
	}
	if t.requests == nil {
		return usage{ratio: float64(sum/n) / float64(t.average), average: sum / n}, nil
	}
	if requested == 0 {
		return usage{}, errors.New("no metrics returned matched known pods")
	}
	percent := int32(sum * 100 / requested)
	return usage{ratio: float64(percent) / float64(t.percent), average: sum / n, percent: percent}, nil
}

// assumed is what a pod without figures is taken to use when there is less to do: all that it requests, or the target.
func (t target) assumed(name string) int64 {
	if t.requests == nil {
		return t.average
	}
	return t.requests[name] * int64(max(100, t.percent)) / 100
}

// groups are pods by what is known of their usage.
type groups struct {
	ready            int
	starting, absent []string // not to be counted yet; without figures
	gone             []string
}

// group sorts pods. The processor time of pods that start is not what they use later.
func group(pods []*corev1.Pod, figures map[string]figure, resource corev1.ResourceName, now time.Time) (g groups) {
	for _, p := range pods {
		f, measured := figures[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			g.gone = append(g.gone, p.Name)
		case p.Status.Phase == corev1.PodPending:
			g.starting = append(g.starting, p.Name)
		case !measured:
			g.absent = append(g.absent, p.Name)
		case resource == corev1.ResourceCPU && starts(p, f, now):
			g.starting = append(g.starting, p.Name)
		default:
			g.ready++
		}
	}
	return g
}

// starts reports whether figures of a pod's processor time do not count yet.
func starts(p *corev1.Pod, f figure, now time.Time) bool {
	ready := podstate.Condition(p, corev1.PodReady)
	if ready == nil || p.Status.StartTime == nil {
		return true
	}
	since := ready.LastTransitionTime.Time
	if p.Status.StartTime.Add(initialization).After(now) {
		return ready.Status == corev1.ConditionFalse || f.at.Before(since.Add(f.window))
	}
	return ready.Status == corev1.ConditionFalse && p.Status.StartTime.Add(firstReadiness).After(since)
}

// average proposes a number of replicas from figures of pods, and returns what these use.
func average(pods []*corev1.Pod, given map[string]figure, resource corev1.ResourceName, t target, tol tolerances, current int32, now time.Time) (int32, usage, error) {
	if len(pods) == 0 {
		return 0, usage{}, errNoPods
	}
	figures := maps.Clone(given)
	g := group(pods, figures, resource, now)
	for _, names := range [][]string{g.gone, g.starting} {
		for _, name := range names {
			delete(figures, name)
		}
	}
	u, err := t.compare(figures)
	if err != nil {
		return 0, usage{}, err
	}
	grows := len(g.starting) > 0 && u.ratio > 1
	if !grows && len(g.absent) == 0 {
		if tol.hold(u.ratio) {
			return current, u, nil
		}
		return whole(u.ratio * float64(g.ready)), u, nil
	}
	for _, name := range g.absent { // as careful as can be, whichever way it goes
		switch {
		case u.ratio < 1:
			figures[name] = figure{value: t.assumed(name)}
		case u.ratio > 1:
			figures[name] = figure{}
		}
	}
	if grows {
		for _, name := range g.starting {
			figures[name] = figure{}
		}
	}
	again, err := t.compare(figures)
	if err != nil {
		return 0, u, err
	}
	if tol.hold(again.ratio) || u.ratio < 1 && again.ratio > 1 || u.ratio > 1 && again.ratio < 1 {
		return current, u, nil
	}
	n := whole(again.ratio * float64(len(figures)))
	if again.ratio < 1 && n > current || again.ratio > 1 && n < current {
		return current, u, nil
	}
	return n, u, nil
}

// total proposes a number of replicas from one figure for all of them. From zero, one replica goes for each time that it reaches its target.
func total(pods []*corev1.Pod, value, goal int64, tol tolerances, current int32) (int32, error) {
	ratio := float64(value) / float64(goal)
	if current == 0 {
		return whole(ratio), nil
	}
	if tol.hold(ratio) {
		return current, nil
	}
	if len(pods) == 0 {
		return 0, fmt.Errorf("unable to calculate ready pods: %w", errNoPods)
	}
	ready := 0
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning && podstate.Ready(p) {
			ready++
		}
	}
	return whole(ratio * float64(ready)), nil
}

// share proposes a number of replicas among which one figure is divided, and returns what each has now.
func share(value, goal int64, tol tolerances, replicas int32) (n int32, each int64) {
	n = replicas
	if !tol.hold(float64(value) / (float64(goal) * float64(replicas))) {
		n = whole(float64(value) / float64(goal))
	}
	return n, ceil(float64(value) / float64(replicas))
}

// whole rounds a number of replicas up.
func whole(f float64) int32 {
	switch {
	case math.IsNaN(f):
		return 0
	case f >= math.MaxInt32:
		return math.MaxInt32
	}
	return int32(math.Ceil(f))
}

func ceil(f float64) int64 {
	if math.IsNaN(f) || f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(math.Ceil(f))
}

// requests returns what each pod requests of a resource, or what one container of it does, in thousandths.
func requests(pods []*corev1.Pod, container string, resource corev1.ResourceName) (map[string]int64, error) {
	out := map[string]int64{}
	for _, p := range pods {
		if container == "" && resourcehelper.IsPodLevelRequestsSet(p) {
			q, ok := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})[resource]
			if !ok {
				return nil, fmt.Errorf("missing pod-level request for %s in Pod %s", resource, p.Name)
			}
			out[p.Name] = amount.Milli(q)
			continue
		}
		found := false
		for _, c := range lasting(p) {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Resources.Requests[resource]
			if !ok {
				return nil, fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, p.Name)
			}
			out[p.Name] = amount.Add(out[p.Name], amount.Milli(q))
			found = true
		}
		if container != "" && !found {
			return nil, fmt.Errorf("container %s not found in Pod %s", container, p.Name)
		}
	}
	return out, nil
}

// lasting returns the containers of a pod that run as long as it does.
func lasting(p *corev1.Pod) []corev1.Container {
	out := append([]corev1.Container(nil), p.Spec.Containers...)
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	return out
}
