package runtime

import (
	"context"
	"fmt"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Events reports every change of a container or sandbox; see [Runtime.Events]. A runtime without GetContainerEvents
// (containerd before 1.7, CRI-O without evented PLEG) is listed every two seconds instead, about as coarse as the
// kubelet's generic PLEG: of several changes within one period, the last is seen (KEP-3386 tells the two apart). That
// the stream is missing is known only after ready: Events fails once with IsUnimplemented and polls when called again.
func (c *CRI) Events(ctx context.Context, ready func(), each func(*Event)) error {
	var err error
	if c.polls.Load() {
		err = c.poll(ctx, ready, each)
	} else if err = c.stream(ctx, ready, each); IsUnimplemented(err) {
		c.polls.Store(true)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// stream reads the runtime's event stream until it breaks.
func (c *CRI) stream(ctx context.Context, ready func(), each func(*Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on the runtime's side too
	s, err := c.rt.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return fmt.Errorf("open the runtime's event stream: %w", err)
	}
	// The runtime sends no header before the first event, so that nothing tells when it has subscribed us. A call over
	// the same connection that is answered after the stream was opened is as near as one gets. Besides, containerd
	// keeps events for minutes while it has no subscriber.
	if _, err := c.Version(ctx); err != nil {
		return fmt.Errorf("confirm the runtime's event stream: %w", err)
	}
	ready()
	for {
		e, err := s.Recv()
		if err != nil {
			return fmt.Errorf("the runtime's event stream ended: %w", err)
		}
		each(e)
	}
}

// poll lists everything now and then and tells the differences as events.
func (c *CRI) poll(ctx context.Context, ready func(), each func(*Event)) error {
	known, err := c.snapshot(ctx)
	if err != nil {
		return err
	}
	ready()
	tick := time.NewTicker(c.pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := c.snapshot(ctx)
		if err != nil {
			return err
		}
		for _, ch := range changes(known, now) {
			e, err := c.fill(ctx, ch)
			if err != nil {
				return err
			}
			each(e)
		}
		known = now
	}
}

// seen is what one listing says about one container or sandbox.
type seen struct {
	sandbox string // the sandbox it belongs to; its own ID for a sandbox
	phase   phase
}

// phase orders the life of a container or sandbox.
type phase int

const (
	phaseCreated phase = iota
	phaseRunning
	phaseStopped
)

// change is one difference between two listings.
type change struct {
	id, sandbox string
	kind        cri.ContainerEventType
}

func (c *CRI) snapshot(ctx context.Context) (map[string]seen, error) {
	sandboxes, err := c.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes for events: %w", err)
	}
	containers, err := c.ListContainers(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list containers for events: %w", err)
	}
	all := make(map[string]seen, len(sandboxes)+len(containers))
	for _, s := range sandboxes {
		p := phaseRunning
		if s.State != cri.PodSandboxState_SANDBOX_READY {
			p = phaseStopped
		}
		all[s.Id] = seen{s.Id, p}
	}
	for _, k := range containers {
		p := phaseCreated
		switch k.State {
		case cri.ContainerState_CONTAINER_RUNNING:
			p = phaseRunning
		case cri.ContainerState_CONTAINER_EXITED:
			p = phaseStopped
		}
		all[k.Id] = seen{k.PodSandboxId, p}
	}
	return all, nil
}

// changes tells, for each container or sandbox, the latest step it has taken from before to after.
func changes(before, after map[string]seen) []change {
	steps := [...]cri.ContainerEventType{
		phaseCreated: cri.ContainerEventType_CONTAINER_CREATED_EVENT,
		phaseRunning: cri.ContainerEventType_CONTAINER_STARTED_EVENT,
		phaseStopped: cri.ContainerEventType_CONTAINER_STOPPED_EVENT,
	}
	var out []change
	for id, a := range after {
		if b, ok := before[id]; !ok || b.phase != a.phase {
			out = append(out, change{id, a.sandbox, steps[a.phase]})
		}
	}
	for id, b := range before {
		if _, ok := after[id]; !ok {
			out = append(out, change{id, b.sandbox, cri.ContainerEventType_CONTAINER_DELETED_EVENT})
		}
	}
	return out
}

// fill makes the event of a change, with the pod's state as it is now.
func (c *CRI) fill(ctx context.Context, ch change) (*Event, error) {
	e := &Event{ContainerId: ch.id, ContainerEventType: ch.kind, CreatedAt: time.Now().UnixNano()}
	status, err := c.PodSandboxStatus(ctx, ch.sandbox)
	if IsNotFound(err) {
		return e, nil
	} else if err != nil {
		return nil, fmt.Errorf("sandbox %s: %w", ch.sandbox, err)
	}
	e.PodSandboxStatus = status
	containers, err := c.ListContainers(ctx, &cri.ContainerFilter{PodSandboxId: ch.sandbox})
	if err != nil {
		return nil, fmt.Errorf("containers of sandbox %s: %w", ch.sandbox, err)
	}
	for _, k := range containers {
		s, err := c.ContainerStatus(ctx, k.Id)
		if IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("container %s: %w", k.Id, err)
		}
		e.ContainersStatuses = append(e.ContainersStatuses, s)
	}
	return e, nil
}
