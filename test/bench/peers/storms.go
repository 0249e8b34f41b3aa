package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// measureStorms patches one ConfigMap from 8 and from 64 clients at a time. Patches that are carried out are counted; a client whose patch is
// answered with a conflict sends it again, as clients do.
func measureStorms(ctx context.Context, b *bench, system string) (err error) {
	c, err := b.startAPI(ctx, system)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	during := 20 * time.Second
	if b.quick {
		during = 2 * time.Second
	}
	const all, one = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/configmaps/one"
	create := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one"}}`)
	if err := c.wait(ctx, "the default namespace", startTimeout, 20*time.Millisecond, func(ctx context.Context) error {
		return c.send(ctx, http.MethodPost, all, create)
	}); err != nil {
		return err
	}
	var n atomic.Int64
	patch := func() error {
		body := fmt.Appendf(nil, `{"data":{"k%d":"%d"}}`, n.Add(1)%16, n.Load())
		for {
			if err := c.send(ctx, http.MethodPatch, one, body); !errors.Is(err, errConflict) {
				return err
			}
		}
	}
	for _, m := range []struct {
		row     string
		writers int
	}{{rowStorm8, 8}, {rowStorm64, 64}} {
		done, took, err := repeat(m.writers, during, func() bool { return false }, patch)
		if err != nil {
			return fmt.Errorf("%s: %w", m.row, err)
		}
		b.results.add(c.system, m.row, float64(done)/took.Seconds())
	}
	return nil
}
