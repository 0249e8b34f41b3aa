package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// measureLists lists the pods that measureWrites made over and over from two clients. What counts is objects per second: the peer may have
// fewer of them.
func (b *bench) measureLists(ctx context.Context, c *cluster) error {
	during := 6 * time.Second
	if b.quick {
		during = time.Second
	}
	count, err := c.countPods(ctx)
	if err != nil {
		return err
	}
	const all = "/api/v1/namespaces/default/pods"
	for _, m := range []struct {
		row, cpuRow string
		do          func() error
	}{
		{rowListJSON, rowListJSONCPU, func() error { return c.discard(ctx, all, jsonType) }},
		{rowListProtobuf, rowListProtobufCPU, func() error { return c.discard(ctx, all, protobufType) }},
		{rowListCached, "", func() error { return c.discard(ctx, all+"?resourceVersion=0", protobufType) }},
		{rowListPages, "", func() error { return c.pages(ctx, all, 500) }},
	} {
		before, err := c.cpu()
		if err != nil {
			return err
		}
		n, took, err := repeat(2, during, func() bool { return false }, m.do)
		if err != nil {
			return fmt.Errorf("%s: %w", m.row, err)
		}
		after, err := c.cpu()
		if err != nil {
			return err
		}
		b.results.add(c.system, m.row, float64(n)*float64(count)/took.Seconds())
		if m.cpuRow != "" {
			b.results.add(c.system, m.cpuRow, (after-before).Seconds()*1e6/float64(n)/float64(count))
		}
	}
	return nil
}

// countPods asks for one pod and for how many there are beside it.
func (c *cluster) countPods(ctx context.Context) (int64, error) {
	list, err := c.page(ctx, "/api/v1/namespaces/default/pods?limit=1")
	if err != nil {
		return 0, err
	}
	if list.Metadata.RemainingItemCount == nil {
		return 0, errors.New("a page of one pod does not say how many remain")
	}
	return *list.Metadata.RemainingItemCount + 1, nil
}

// head is what a client needs of a page to go on.
type head struct {
	Metadata struct {
		Continue           string `json:"continue"`
		RemainingItemCount *int64 `json:"remainingItemCount"`
	} `json:"metadata"`
}

func (c *cluster) page(ctx context.Context, path string) (head, error) {
	var h head
	body, err := c.get(ctx, path, jsonType)
	if err != nil {
		return h, err
	}
	// The list's metadata stand before its items: no need to read those.
	d := json.NewDecoder(bytes.NewReader(body))
	for {
		t, err := d.Token()
		if err != nil {
			return h, fmt.Errorf("a list without metadata: %w", err)
		}
		if t == "metadata" {
			return h, d.Decode(&h.Metadata)
		}
	}
}

// pages reads the whole list, page after page.
func (c *cluster) pages(ctx context.Context, path string, size int) error {
	next := fmt.Sprintf("%s?limit=%d", path, size)
	for {
		h, err := c.page(ctx, next)
		if err != nil || h.Metadata.Continue == "" {
			return err
		}
		next = fmt.Sprintf("%s?limit=%d&continue=%s", path, size, h.Metadata.Continue)
	}
}

// discard reads a response to its end.
func (c *cluster) discard(ctx context.Context, path, accept string) error {
	resp, err := c.do(ctx, http.MethodGet, path, accept, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// measureWatches lets few and many watchers be told of every change of a few objects.
func (b *bench) measureWatches(ctx context.Context, c *cluster) error {
	for _, m := range []struct {
		row, cpuRow string
		watchers    int
	}{
		{rowWatch100, "", 100},
		{rowWatch1000, rowWatchCPU, 1000},
	} {
		if err := b.fanOut(ctx, c, m.watchers, m.row, m.cpuRow); err != nil {
			return fmt.Errorf("%s: %w", m.row, err)
		}
	}
	return nil
}

// fanOut changes a few ConfigMaps while watchers look on, and counts what they are told. Writers wait while too much is under way, so that
// a server which tells slower is not cut off from its watchers but only takes longer.
func (b *bench) fanOut(ctx context.Context, c *cluster, watchers int, row, cpuRow string) error {
	const writers, ahead = 4, 16
	during := 6 * time.Second
	if b.quick {
		during = time.Second
	}
	path := "/api/v1/namespaces/default/configmaps"
	object := func(writer, n int64) []byte {
		return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"told-%d-%d","labels":{"told":"%d"}},"data":{"n":"%d"}}`, watchers, writer, watchers, n)
	}
	for i := range int64(writers) {
		if err := c.send(ctx, http.MethodPost, path, object(i, 0)); err != nil {
			return err
		}
	}
	w, err := c.openWatches(ctx, fmt.Sprintf("%s?watch=1&labelSelector=told%%3D%d", path, watchers), watchers)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.settle(ctx); err != nil {
		return err
	}
	first := w.events.Load()
	before, err := c.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	var turn, writes atomic.Int64
	told := func() int64 { return w.events.Load() - first }
	_, _, err = repeat(writers, during, func() bool { return ctx.Err() != nil }, func() error {
		for told() < (writes.Load()-ahead)*int64(watchers) && time.Since(began) < during {
			if err := sleep(ctx, 200*time.Microsecond); err != nil {
				return err
			}
		}
		n := turn.Add(1)
		writes.Add(1)
		return c.send(ctx, http.MethodPut, fmt.Sprintf("%s/told-%d-%d", path, watchers, n%writers), object(n%writers, n))
	})
	if err != nil {
		return err
	}
	for told() < writes.Load()*int64(watchers) && time.Since(began) < during+30*time.Second {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	took := time.Since(began)
	after, err := c.cpu()
	if err != nil {
		return err
	}
	b.results.add(c.system, row, float64(told())/took.Seconds())
	if cpuRow != "" {
		b.results.add(c.system, cpuRow, (after-before).Seconds()*1e6/float64(told()))
	}
	if missing := writes.Load()*int64(watchers) - told(); missing > 0 {
		b.results.note(c.system, row, fmt.Sprintf("%d events of %d never arrived; %d watches ended", missing, writes.Load()*int64(watchers), w.ended.Load()))
	}
	return nil
}
