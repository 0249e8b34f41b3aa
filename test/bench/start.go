package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// measureStart times starts of the control plane in new data directories, and again in the same ones.
func measureStart(ctx context.Context, b *bench) ([]figure, error) {
	rounds := 5
	if b.quick {
		rounds = 3
	}
	var first, second []time.Duration
	for i := range rounds {
		dir := filepath.Join(b.dir, fmt.Sprint("start-", i))
		for _, list := range []*[]time.Duration{&first, &second} {
			s, err := b.startServer(ctx, dir, "--no-agent")
			if err != nil {
				return nil, err
			}
			*list = append(*list, s.ready)
			if err := s.stop(); err != nil {
				return nil, err
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	spread := func(l []time.Duration) string {
		return fmt.Sprintf("median of %d, %d to %d", len(l), slices.Min(l).Milliseconds(), slices.Max(l).Milliseconds())
	}
	return []figure{
		{"new data directory", millis(quantile(first, 0.5)), "<= 1000 ms", spread(first)},
		{"second start", millis(quantile(second, 0.5)), "<= 1000 ms", spread(second)},
	}, nil
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
}

// quantile returns the value below which the share q of the list lies.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
