package scheduler

import (
	"time"

	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// wake looks at the rejected pods after something happened. Those are taken back into the queue that a node suits now;
// those that could make room by preemption where a node changed or a pod went, and those that wait for something else by now.
func (s *Scheduler) wake(now time.Time) {
	if s.helps == 0 {
		return
	}
	helped, shifted := placement.HelpedBy(s.helps), s.helps&(placement.NodeChanged|placement.PodGone) != 0
	s.helps = 0
	// Pods of one class share their rejection, and with it the answer.
	answers := map[*placement.Rejection]bool{}
	suits := func(p *pending) bool {
		suit, asked := answers[p.rejection]
		if !asked {
			suit = s.state.Feasible(p.pod)
			answers[p.rejection] = suit
		}
		return suit
	}
	for _, p := range s.queue.backoff {
		if !p.hurry && p.rejection != nil && p.rejection.Filters&helped != 0 {
			p.hurry = suits(p)
		}
	}
	for _, p := range s.queue.aside {
		if p.rejection.Filters&helped == 0 {
			continue
		}
		if suit := suits(p); suit || shifted && s.state.Outranks(priorityOf(p.pod)) || s.state.Outdated(p.pod, p.rejection) {
			s.queue.wake(p, now, suit)
		}
	}
}
