// Package stats measures a node and its pods, when somebody asks.
//
// What flows through it: the runtime's figures (CRI) and those of the machine go into a [stats.Summary], the kubelet's own form; two
// of them, one a while after the other, make rates ([Rates]); they are shown as JSON (/stats/summary), as metrics for Prometheus
// ([Resource], [Cadvisor]) and as the resources of metrics.k8s.io ([NodeUsage], [PodUsage]).
//
// What must stay true: nothing is measured while nobody asks or has it pushed ([Collector.Push]), but for package demand once a minute; a rate is never made up - it comes
// from two counters of the same run of the same container, and the window between them is told; what is not known is left out, not zero. All
// but [Collector] is pure. Tests: TestRates, TestBefore, TestCollectorMeasuresWhenAsked, TestPushesFollowTheLoad.
package stats

import (
	"context"
	"sync"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Sample is what was measured at one time. It is immutable.
type Sample struct {
	At      time.Time
	Summary stats.Summary // counters, without rates
}

// Pair is two samples, Old a while before New.
type Pair struct{ Old, New *Sample }

const (
	// fresh is the age up to which a sample is used again: many who ask at a time cost one measurement.
	fresh = time.Second
	// shortest and longest bound the time between two samples from which a rate is made. Who asks first waits for shortest; after
	// longest without a question the past says little about now.
	shortest, longest = time.Second, 90 * time.Second
	// settled is the time between samples that is preferred, where there is a choice.
	settled = 10 * time.Second
	// kept is how many samples are remembered.
	kept = 16
	// period is the time between two pushes, and at least idlePart times what measuring takes. A push is about the last window.
	period, window = time.Second, 2 * time.Second
	idlePart       = 20
)

// Collector measures when asked, and remembers a few samples.
type Collector struct {
	// Measure takes a sample.
	Measure func(ctx context.Context) (*Sample, error)

	mu      sync.Mutex
	samples []*Sample // the oldest first
}

// Counters returns a sample that is fresh.
func (c *Collector) Counters(ctx context.Context) (*Sample, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newest(ctx, fresh)
}

// Push measures and hands the newest sample and one a window before to push, again and again, until ctx ends, push fails or nothing can
// be measured.
func (c *Collector) Push(ctx context.Context, push func(Pair) error) error {
	var last []*Sample
	for {
		began := time.Now()
		c.mu.Lock()
		s, err := c.newest(ctx, period/2)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		last = append(last, s)
		for len(last) > 2 && s.At.Sub(last[1].At) >= window-period/2 {
			last = last[1:]
		}
		if s.At.Sub(last[0].At) >= period/2 {
			if err := push(Pair{Old: last[0], New: s}); err != nil {
				return err
			}
		}
		took := time.Since(began)
		t := time.NewTimer(max(period, idlePart*took) - took)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// Rates returns two samples; where there is none to compare with yet, it takes one, waits, and takes another.
func (c *Collector) Rates(ctx context.Context) (Pair, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, err := c.newest(ctx, fresh)
	if err != nil {
		return Pair{}, err
	}
	if old := before(c.samples, last.At); old != nil {
		return Pair{Old: old, New: last}, nil
	}
	t := time.NewTimer(shortest - time.Since(last.At) + 10*time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return Pair{}, ctx.Err()
	case <-t.C:
	}
	next, err := c.take(ctx)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Old: last, New: next}, nil
}

// newest returns a sample that is younger than age. c.mu must be held.
func (c *Collector) newest(ctx context.Context, age time.Duration) (*Sample, error) {
	if n := len(c.samples); n > 0 && time.Since(c.samples[n-1].At) < age {
		return c.samples[n-1], nil
	}
	return c.take(ctx)
}

func (c *Collector) take(ctx context.Context) (*Sample, error) {
	s, err := c.Measure(ctx)
	if err != nil {
		return nil, err
	}
	c.samples = append(c.samples, s)
	c.samples = c.samples[max(0, len(c.samples)-kept):]
	return s, nil
}

// before returns the sample to compare one of time at with: the newest that is settled, else the oldest that is not too close.
func before(samples []*Sample, at time.Time) *Sample {
	var best *Sample
	for _, s := range samples {
		switch age := at.Sub(s.At); {
		case age < shortest || age > longest:
		case best == nil, age >= settled:
			best = s
		}
	}
	return best
}
