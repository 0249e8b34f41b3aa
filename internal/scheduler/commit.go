package scheduler

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// commit binds the batches that the loop decided on.
func (s *Scheduler) commit(ctx context.Context) error {
	for {
		var flights []flight
		select {
		case flights = <-s.batches:
		case <-ctx.Done():
			return nil
		}
		flights, asking := apart(flights)
		bindings := make([]client.Binding, len(flights))
		for i, f := range flights {
			bindings[i] = client.Binding{Pod: f.key, UID: string(f.pod.UID), Node: f.node, Claims: claimed(f.claims), Volumes: f.volumes}
		}
		results := s.client.BindMany(ctx, bindings)
		for i := range results {
			if results[i].Err != nil {
				flights[i].unknown, results[i].Err = s.confirm(ctx, flights[i], results[i].Err)
			}
		}
		if !s.call(ctx, func() { s.landed(flights, results) }) {
			return nil
		}
		s.report.scheduled(flights, results)
		for _, f := range asking {
			err := s.ask(ctx, &f)
			if !s.call(ctx, func() { s.asked(&f, err) }) {
				return nil
			}
		}
	}
}

// apart parts the pods that are to be bound from those for which a provisioner has to be asked first.
func apart(all []flight) (bound, asking []flight) {
	for _, f := range all {
		if len(f.asks) > 0 {
			asking = append(asking, f)
		} else {
			bound = append(bound, f)
		}
	}
	return bound, asking
}

// confirm finds out what became of a binding that returned err: it may have been made though the answer was lost, and then
// the node's room must not be given away. unknown reports whether it could not be found out.
func (s *Scheduler) confirm(ctx context.Context, f flight, err error) (unknown bool, _ error) {
	pod, getErr := client.Get[*corev1.Pod](ctx, s.client, f.key)
	switch {
	case apierrors.IsNotFound(getErr):
		return false, getErr
	case getErr != nil:
		return true, err
	case pod.UID == f.pod.UID && pod.Spec.NodeName == f.node:
		return false, nil
	}
	return false, err
}

// landed learns what became of a batch.
func (s *Scheduler) landed(flights []flight, results []client.Result) {
	s.flying--
	now := time.Now()
	for i, f := range flights {
		s.metrics.landed(s.name, &f, results[i].Err, now)
		p := s.queue.pods[f.key]
		known := p != nil && p.pod.UID == f.pod.UID
		err := results[i].Err
		if err == nil {
			s.boundWith(&f, results[i].Object)
			if known { // the watch may have told already
				s.queue.remove(f.key)
			}
			continue
		}
		if !f.unknown && s.state.Assumed(f.key, f.pod.UID) && s.state.RemovePod(f.key) {
			s.helps |= placement.PodGone
		}
		if !f.unknown && s.state.Devices().NotBound(f.pod.UID) {
			s.helps |= placement.DevicesChanged
		}
		if !f.unknown && s.state.Volumes().NotBound(f.pod.UID) {
			s.helps |= placement.ClaimChanged
		}
		if !known {
			continue // deleted or assigned by somebody else meanwhile
		}
		if apierrors.IsNotFound(err) {
			s.queue.remove(f.key)
			continue
		}
		s.log.Warn("binding failed, will retry", "pod", f.key.String(), "node", f.node, "err", err)
		s.queue.fail(p)
	}
}
