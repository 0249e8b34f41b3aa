package rollout

// Set is a ReplicaSet on its way to a size.
type Set struct {
	Pods
	Target int32
}

// Bounds are a Deployment's replicas, maxSurge and maxUnavailable as numbers of pods.
type Bounds struct{ Replicas, Surge, Unavailable int32 }

// Move returns the sizes that sets may have now. Those that come first grow first and shrink last. In one step sets grow, or shrink: no more
// pods than the surge or the targets allow, and no available pod goes that is needed for the least availability. Pods that are not
// available hold up nobody, as taking them away costs nothing.
func Move(b Bounds, sets []Set) []int32 {
	total, targets, available := int32(0), int32(0), int32(0)
	out := make([]int32, len(sets))
	for i, s := range sets {
		out[i] = s.Size
		total += s.Size
		targets += s.Target
		available += min(s.Available, s.Size)
	}
	room := max(b.Replicas+b.Surge, targets) - total
	grown := false
	for i, s := range sets {
		if more := min(room, s.Target-s.Size); more > 0 {
			out[i] += more
			room -= more
			grown = true
		}
	}
	if grown {
		return out
	}
	spare := available - (b.Replicas - b.Unavailable)
	for i := len(sets) - 1; i >= 0; i-- {
		s := sets[i]
		over := s.Size - s.Target
		if over <= 0 {
			continue
		}
		idle := min(over, s.Size-min(s.Available, s.Size))
		taken := max(min(over-idle, spare), 0)
		out[i] -= idle + taken
		spare -= taken
	}
	return out
}
