package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	ruledPath    = "/apis/ruled.bench.example.com/v1/ruleds"
	ruledObjects = 10_000
)

// measureRuled creates and changes objects with twenty rules in CEL, from 16 clients, and lists them.
func (b *bench) measureRuled(ctx context.Context, c *cluster) error {
	properties := map[string]any{}
	var rules []any
	for i := range 20 {
		properties[fmt.Sprintf("n%d", i)] = map[string]any{"type": "integer"}
		rules = append(rules, map[string]any{"rule": fmt.Sprintf("self.n%d >= 0 && self.n%d <= self.n%d + 100", i, i, (i+1)%20), "message": "out of order"})
	}
	spec := map[string]any{"type": "object", "properties": properties, "x-kubernetes-validations": rules}
	if err := c.send(ctx, http.MethodPost, definitionsPath, definitionOf("ruled.bench.example.com", "ruleds", "Ruled", spec)); err != nil {
		return err
	}
	if err := c.wait(ctx, "objects with rules to be served", b.limit, 20*time.Millisecond, func(ctx context.Context) error {
		_, err := c.get(ctx, ruledPath, jsonType)
		return err
	}); err != nil {
		return err
	}
	during, objects := 10*time.Second, int64(ruledObjects)
	if b.quick {
		during, objects = time.Second, objects/10
	}
	var made, changed atomic.Int64
	create := func() error { return c.send(ctx, http.MethodPost, ruledPath, ruled(made.Add(1), 0)) }
	n, took, err := repeat(16, during, func() bool { return made.Load() >= objects-15 }, create)
	if err != nil {
		return fmt.Errorf("%s: %w", rowRuledCreated, err)
	}
	b.results.add(c.system, rowRuledCreated, float64(n)/took.Seconds())
	there := made.Load()
	n, took, err = repeat(16, during, func() bool { return false }, func() error {
		turn := changed.Add(1)
		i := turn%there + 1
		return c.send(ctx, http.MethodPatch, fmt.Sprintf("%s/r-%06d", ruledPath, i), fmt.Appendf(nil, `{"spec":{"n0":%d}}`, turn%50))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", rowRuledChanged, err)
	}
	b.results.add(c.system, rowRuledChanged, float64(n)/took.Seconds())
	if _, _, err := repeat(16, b.limit, func() bool { return made.Load() >= objects-15 }, create); err != nil {
		return err
	}
	there = made.Load()
	n, took, err = repeat(2, during, func() bool { return false }, func() error { return c.discard(ctx, ruledPath, jsonType) })
	if err != nil {
		return fmt.Errorf("%s: %w", rowRuledList, err)
	}
	b.results.add(c.system, rowRuledList, float64(n)*float64(there)/took.Seconds())
	return nil
}

// ruled returns an object that follows the rules.
func ruled(n, first int64) []byte {
	out := fmt.Appendf(nil, `{"apiVersion":"ruled.bench.example.com/v1","kind":"Ruled","metadata":{"name":"r-%06d"},"spec":{"n0":%d`, n, first)
	for i := 1; i < 20; i++ {
		out = fmt.Appendf(out, `,"n%d":%d`, i, i)
	}
	return append(out, "}}"...)
}
