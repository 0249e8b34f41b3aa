package podautoscaler

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/utils/ptr"
)

const (
	// downWindow is how long the highest recent number of replicas is kept.
	downWindow = 5 * time.Minute
	// Without rules of its own an autoscaler at most doubles the replicas, or makes leastLimit of them.
	upFactor   = 2
	leastLimit = 4
	// longestPeriod is that of any policy (API validation), and so how long changes are remembered.
	longestPeriod = 30 * time.Minute
)

// entry is a number at a time: replicas recommended, or by how many they changed.
type entry struct {
	n  int32
	at time.Time
}

// history is what an autoscaler recommended and did lately. It is a memory of convenience: after a restart it begins with the present number.
type history struct {
	recommended []entry
	up, down    []entry // by how many replicas were added and removed
}

// forget drops what no longer matters.
func (h history) forget(now time.Time) history {
	old := func(longest time.Duration) func(entry) bool {
		return func(e entry) bool { return e.at.Before(now.Add(-longest)) }
	}
	return history{slices.DeleteFunc(slices.Clone(h.recommended), old(time.Hour)), // the longest window that validation allows
		slices.DeleteFunc(slices.Clone(h.up), old(longestPeriod)), slices.DeleteFunc(slices.Clone(h.down), old(longestPeriod))}
}

// changed notes that replicas were changed.
func (h history) changed(from, to int32, now time.Time) history {
	if to > from {
		h.up = append(slices.Clone(h.up), entry{to - from, now})
	} else {
		h.down = append(slices.Clone(h.down), entry{from - to, now})
	}
	return h
}

func within(entries []entry, period time.Duration, now time.Time) (sum int32) {
	for _, e := range entries {
		if e.at.After(now.Add(-period)) {
			sum += e.n
		}
	}
	return sum
}

// bounds is the range in which replicas are to be.
type bounds struct{ least, most int32 }

// limited is a number of replicas, and why it is not another.
type limited struct {
	replicas        int32
	reason, message string
}

var (
	inRange = limited{reason: "DesiredWithinRange", message: "the desired count is within the acceptable range"}
	tooFast = limited{reason: "ScaleUpLimit", message: "the desired replica count is increasing faster than the maximum scale rate"}
	tooSlow = limited{reason: "ScaleDownLimit", message: "the desired replica count is decreasing faster than the maximum scale rate"}
	tooMany = limited{reason: "TooManyReplicas", message: "the desired replica count is more than the maximum replica count"}
	tooFew  = limited{reason: "TooFewReplicas", message: "the desired replica count is less than the minimum replica count"}
)

func (l limited) at(n int32) limited {
	l.replicas = n
	return l
}

// steady returns the number of replicas after stabilization, and the name of the direction if it is another than wanted.
func steady(b *autoscalingv2.HorizontalPodAutoscalerBehavior, h history, current, wanted int32, now time.Time) limited {
	if b == nil {
		highest := wanted
		for _, e := range h.recommended {
			if !e.at.Before(now.Add(-downWindow)) {
				highest = max(highest, e.n)
			}
		}
		return stabilizedDown.at(highest)
	}
	up, down := wanted, wanted
	upSince, downSince := now.Add(-window(b.ScaleUp, 0)), now.Add(-window(b.ScaleDown, downWindow))
	for _, e := range h.recommended {
		if e.at.After(upSince) {
			up = min(up, e.n)
		}
		if e.at.After(downSince) {
			down = max(down, e.n)
		}
	}
	n := min(max(current, up), down)
	if wanted >= current {
		return stabilizedUp.at(n)
	}
	return stabilizedDown.at(n)
}

var (
	stabilizedUp   = limited{reason: "ScaleUpStabilized", message: "recent recommendations were lower than current one, applying the lowest recent recommendation"}
	stabilizedDown = limited{reason: "ScaleDownStabilized", message: "recent recommendations were higher than current one, applying the highest recent recommendation"}
)

func window(rules *autoscalingv2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if rules == nil || rules.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return time.Duration(*rules.StabilizationWindowSeconds) * time.Second
}

// limit keeps a number of replicas in the bounds, and the change as slow as the rules ask for.
func limit(behavior *autoscalingv2.HorizontalPodAutoscalerBehavior, h history, b bounds, current, wanted int32, now time.Time) limited {
	if behavior == nil {
		fastest := max(upFactor*current, leastLimit)
		switch {
		case wanted < b.least:
			return tooFew.at(b.least)
		case b.most > fastest && wanted > fastest:
			return tooFast.at(fastest)
		case wanted > b.most:
			return tooMany.at(b.most)
		}
		return inRange.at(wanted)
	}
	switch {
	case wanted > current:
		fastest := max(current, furthest(behavior.ScaleUp, h, current, 1, now))
		if b.most > fastest && wanted > fastest {
			return tooFast.at(fastest)
		}
		if wanted > b.most {
			return tooMany.at(b.most)
		}
	case wanted < current:
		fastest := min(current, furthest(behavior.ScaleDown, h, current, -1, now))
		if b.least < fastest && wanted < fastest {
			return tooSlow.at(fastest)
		}
		if wanted < b.least {
			return tooFew.at(b.least)
		}
	}
	return inRange.at(wanted)
}

// furthest returns how far the policies of one direction let replicas go: sign is 1 for up and -1 for down.
func furthest(rules *autoscalingv2.HPAScalingRules, h history, current, sign int32, now time.Time) int32 {
	if rules == nil {
		return sign * math.MaxInt32
	}
	choice := ptr.Deref(rules.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if choice == autoscalingv2.DisabledPolicySelect {
		return current
	}
	var steps []int32 // how far in the direction, so that more is further
	for _, p := range rules.Policies {
		period := time.Duration(p.PeriodSeconds) * time.Second
		began := current - within(h.up, period, now) + within(h.down, period, now)
		to := began + sign*p.Value
		if p.Type == autoscalingv2.PercentScalingPolicy {
			to = percentOf(began, 100+sign*p.Value, sign)
		}
		steps = append(steps, sign*to)
	}
	switch {
	case len(steps) == 0:
		return current
	case choice == autoscalingv2.MinChangePolicySelect:
		return sign * slices.Min(steps)
	}
	return sign * slices.Max(steps)
}

// percentOf rounds up on the way up, where less might be no change at all, and down on the way down.
func percentOf(n, percent, sign int32) int32 {
	f := float64(n) * float64(percent) / 100
	if sign > 0 {
		return whole(f)
	}
	return int32(f)
}
