package main

import (
	"context"
	"errors"
	"time"
)

// measureStart times the start of the control plane in a new data directory.
func measureStart(ctx context.Context, b *bench, system string) error {
	rounds := 3
	if b.quick {
		rounds = 1
	}
	for range rounds {
		c, err := b.startCluster(ctx, system, 0)
		if err != nil {
			return err
		}
		b.results.add(system, rowStart, float64(c.ready.Milliseconds()))
		if err := c.stop(); err != nil {
			return err
		}
	}
	return nil
}

// measurePlane takes everything that needs no nodes from one control plane: at rest first, before there is anything in it.
func measurePlane(ctx context.Context, b *bench, system string) (err error) {
	c, err := b.startCluster(ctx, system, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	settle, watch := 12*time.Second, 60*time.Second
	if b.quick {
		settle, watch = 2*time.Second, 6*time.Second
	}
	if err := sleep(ctx, settle); err != nil { // what follows from the start
		return err
	}
	if _, err := b.idle(ctx, c, watch, "empty", rowIdleCPU); err != nil {
		return err
	}
	m, err := c.memory()
	if err != nil {
		return err
	}
	b.results.add(system, rowEmptyRSS, m.resident)
	b.results.add(system, rowEmptyAnonymous, m.anonymous)
	if err := b.measureWrites(ctx, c); err != nil {
		return err
	}
	if err := b.measureLists(ctx, c); err != nil {
		return err
	}
	return b.measureWatches(ctx, c)
}

// idle measures the share of a core that a control plane uses while nobody asks for anything.
func (b *bench) idle(ctx context.Context, c *cluster, during time.Duration, name, row string) (share float64, err error) {
	defer b.profiles(ctx, c, name+"-idle", during)()
	before, err := c.cpu()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := sleep(ctx, during); err != nil {
		return 0, err
	}
	after, err := c.cpu()
	share = (after - before).Seconds() / time.Since(began).Seconds()
	b.results.add(c.system, row, 100*share)
	return share, err
}
