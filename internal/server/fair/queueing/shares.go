package queueing

import (
	"math"
	"time"
)

// integral follows a value through time.
type integral struct {
	since, at   time.Duration
	value, high float64
	sum, square float64 // of value and its square, by seconds
}

func (i *integral) advance(now time.Duration) {
	dt := (now - i.at).Seconds()
	i.sum += i.value * dt
	i.square += i.value * i.value * dt
	i.at = now
}

func (i *integral) set(value float64) {
	i.value = value
	i.high = max(i.high, value)
}

// Demand is how many seats a level could have used.
type Demand struct {
	High, Average, Deviation float64
	// Smoothed rises with the demand and falls slowly: half of it is left after five minutes.
	Smoothed float64
}

// adjustEvery is the period for which Smoothed's decay is given; decay is what is left of it after one.
const (
	adjustEvery = 10 * time.Second
	decay       = 0.977
)

// Demand returns what a level could have used since the last call, after what it had said then.
func (l *Level) Demand(before Demand, now time.Duration) Demand {
	l.advance(now)
	i := &l.demand
	after := Demand{High: i.high, Average: before.Average, Deviation: before.Deviation, Smoothed: before.Smoothed}
	if period := (now - i.since).Seconds(); period > 0 {
		after.Average = i.sum / period
		after.Deviation = math.Sqrt(max(i.square/period-after.Average*after.Average, 0))
		envelope := after.Average + after.Deviation
		kept := math.Pow(decay, period/adjustEvery.Seconds())
		after.Smoothed = max(envelope, kept*before.Smoothed+(1-kept)*envelope)
	}
	l.demand = integral{since: now, at: now, value: i.value, high: i.value}
	return after
}

// Share is what a level's configuration says about its part of the server.
type Share struct {
	Exempt bool
	// Shares are the level's part of all seats, among the other levels' shares.
	Shares int
	// LendablePercent is how much of that others may use, BorrowingPercent how much of others' it may; nil does not bound it.
	LendablePercent  int
	BorrowingPercent *int
}

// Limit bounds the seats of a level.
type Limit struct{ Nominal, Min, Max int }

// Limits divides the server's seats between levels. Each gets its part rounded up.
func Limits(total int, shares []Share) []Limit {
	sum := 0
	for _, s := range shares {
		sum += s.Shares
	}
	out := make([]Limit, len(shares))
	for i, s := range shares {
		nominal := 0
		if sum > 0 {
			nominal = int(math.Ceil(float64(total) * float64(s.Shares) / float64(sum)))
		}
		borrows := total
		if s.BorrowingPercent != nil {
			borrows = percent(nominal, *s.BorrowingPercent)
		}
		out[i] = Limit{Nominal: nominal, Min: nominal - percent(nominal, s.LendablePercent), Max: nominal + borrows}
	}
	return out
}

func percent(of, p int) int { return int(math.Round(float64(of) * float64(p) / 100)) }

// Part is a level whose seats are to be adjusted.
type Part struct {
	Exempt bool
	Limit
	Demand
}

// bounds returns what a level gets at least, and what it should have if there is enough.
func (p Part) bounds() (low, target float64) {
	wanted := int(math.Round(p.High))
	if p.Exempt {
		return float64(max(p.Min, wanted)), 0
	}
	low = float64(max(p.Min, min(p.Nominal, wanted)))
	return low, max(low, p.Smoothed)
}

// Target is what a level should have if there is enough.
func (p Part) Target() float64 {
	low, target := p.bounds()
	return max(low, target)
}

// Allocate divides the seats between levels by what they could have used, within their limits. What exempt levels use the others
// cannot have. fraction is how much of its target each level gets that no limit binds.
func Allocate(parts []Part) (seats []int, fraction float64) {
	seats = make([]int, len(parts))
	left, least, low := 0., 0., 0.
	for i, p := range parts {
		left += float64(p.Nominal)
		if at, _ := p.bounds(); p.Exempt {
			seats[i] = int(at)
			left -= at
		} else {
			least += float64(p.Min)
			low += at
		}
	}
	switch {
	case left <= least: // not even enough for what no level lends
		assign(parts, seats, func(p Part) float64 { return float64(p.Min) })
	case left <= low:
		part := (left - least) / (low - least)
		assign(parts, seats, func(p Part) float64 {
			at, _ := p.bounds()
			return float64(p.Min) + math.Round((at-float64(p.Min))*part)
		})
	default:
		fraction = fairFraction(parts, left)
		assign(parts, seats, func(p Part) float64 { return p.at(fraction) })
	}
	return seats, fraction
}

func assign(parts []Part, seats []int, of func(Part) float64) {
	for i, p := range parts {
		if !p.Exempt {
			seats[i] = int(math.Round(of(p)))
		}
	}
}

// at is what a level gets at a fraction of its target.
func (p Part) at(fraction float64) float64 {
	low, target := p.bounds()
	return max(low, min(float64(p.Max), fraction*max(target, leastTarget)))
}

// leastTarget is the target of levels that want nothing, so that they, too, share in what nobody wants.
const leastTarget = 0.001

// fairFraction finds the fraction at which the levels get sum together, or as near as their limits let them. What they get grows with
// the fraction, so that halving an interval finds it.
func fairFraction(parts []Part, sum float64) float64 {
	total := func(fraction float64) (all float64) {
		for _, p := range parts {
			if !p.Exempt {
				all += p.at(fraction)
			}
		}
		return all
	}
	low, high := 0., 1.
	for total(high) < sum && high < 1e9 {
		low, high = high, high*2
	}
	for range 64 {
		if middle := (low + high) / 2; total(middle) < sum {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}
