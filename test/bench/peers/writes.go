package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// podsToList is how many pods measureWrites leaves behind for measureLists.
const podsToList = 10000

// measureWrites creates objects one after the other from one client and from 32 at a time. The pods name a scheduler that does not exist, so
// that nobody but the API has work with them.
func (b *bench) measureWrites(ctx context.Context, c *cluster) error {
	during := 5 * time.Second
	pods := int64(podsToList)
	if b.quick {
		during, pods = time.Second, pods/10
	}
	var made atomic.Int64
	create := func(path string, object func(n int64) []byte) func() error {
		return func() error { return c.send(ctx, http.MethodPost, path, object(made.Add(1))) }
	}
	configMaps := create("/api/v1/namespaces/default/configmaps", func(n int64) []byte {
		return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c-%06d"},"data":{"key":"%06d"}}`, n, n)
	})
	firstPod := int64(0)
	onePod := create("/api/v1/namespaces/default/pods", pod)
	for _, m := range []struct {
		row, cpuRow string
		clients     int
		do          func() error
		limit       int64
	}{
		{rowConfigMaps1, "", 1, configMaps, 0},
		{rowConfigMaps32, rowConfigMapCPU, 32, configMaps, 0},
		{rowPods1, "", 1, onePod, pods},
		{rowPods32, rowPodCPU, 32, onePod, pods},
	} {
		if m.row == rowPods1 {
			firstPod = made.Load()
		}
		before, err := c.cpu()
		if err != nil {
			return err
		}
		enough := func() bool { return m.limit > 0 && made.Load()-firstPod >= m.limit-int64(m.clients)+1 }
		limit := during
		if m.row == rowPods32 {
			limit = time.Minute // until all pods are there
		}
		n, took, err := repeat(m.clients, limit, enough, m.do)
		if err != nil {
			return fmt.Errorf("%s: %w", m.row, err)
		}
		after, err := c.cpu()
		if err != nil {
			return err
		}
		b.results.add(c.system, m.row, float64(n)/took.Seconds())
		if m.cpuRow != "" {
			b.results.add(c.system, m.cpuRow, (after-before).Seconds()*1e6/float64(n))
		}
	}
	return nil
}

func pod(n int64) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-%06d","labels":{"app":"listed","tier":"t%d"},
"annotations":{"example.com/owner":"peers"}},"spec":{"schedulerName":"nobody","containers":[{"name":"c","image":"docker.io/library/nginx:1",
"env":[{"name":"NUMBER","value":"%d"}],"ports":[{"containerPort":80}],"resources":{"requests":{"cpu":"10m","memory":"16Mi"}}}]}}`, n, n%10, n)
}

// repeat does something from several clients at a time until the time is over or there is enough of it, and returns how often it was done.
func repeat(clients int, during time.Duration, enough func() bool, do func() error) (int64, time.Duration, error) {
	began := time.Now()
	var count atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		wg.Go(func() {
			for time.Since(began) < during && !enough() {
				if errs[i] = do(); errs[i] != nil {
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return count.Load(), time.Since(began), errors.Join(errs...)
}
