package scheduler

import (
	"time"

	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// help is a set of kinds of events that may make a rejected pod placeable.
type help uint8

const (
	helpNode      help = 1 << iota // a node came, or changed other than by a heartbeat
	helpNodeGone                   // a node went: domains may have become fewer
	helpPodGone                    // a placed pod went, or will use less
	helpPodPlaced                  // a pod was placed, or a placed one changed its labels
	helpClaim                      // a PersistentVolumeClaim changed
	helpNamespace                  // a namespace changed its labels
	helpRoom                       // room kept for a nominated pod was given up
)

// helped says which filters may decide differently after such events: the queueing hints of KEP-4247.
func (h help) helped() placement.Filter {
	var f placement.Filter
	if h&helpNode != 0 {
		f |= placement.FilterUnschedulable | placement.FilterTaints | placement.FilterNodeAffinity |
			placement.FilterPorts | placement.FilterResources | placement.FilterSpread | placement.FilterInterPod
	}
	if h&helpNodeGone != 0 {
		f |= placement.FilterSpread | placement.FilterInterPod
	}
	if h&helpPodGone != 0 {
		f |= placement.FilterPorts | placement.FilterResources | placement.FilterSpread | placement.FilterInterPod
	}
	if h&helpPodPlaced != 0 {
		f |= placement.FilterSpread | placement.FilterInterPod
	}
	if h&helpClaim != 0 {
		f |= placement.FilterVolumes
	}
	if h&helpNamespace != 0 {
		f |= placement.FilterInterPod
	}
	if h&helpRoom != 0 {
		f |= placement.FilterPorts | placement.FilterResources
	}
	return f
}

// wake looks at the rejected pods after something happened. Those are taken back into the queue that a node suits now;
// and those that could make room by preemption where a node changed or a pod went.
func (s *Scheduler) wake(now time.Time) {
	if s.helps == 0 {
		return
	}
	helped, shifted := s.helps.helped(), s.helps&(helpNode|helpPodGone) != 0
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
		if suit := suits(p); suit || shifted && s.state.Outranks(priorityOf(p.pod)) {
			s.queue.wake(p, now, suit)
		}
	}
}
