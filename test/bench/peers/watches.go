package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// watches are open watch requests of which only the number of events matters.
type watches struct {
	events atomic.Int64
	ended  atomic.Int64 // by the server

	stop context.CancelFunc
	wg   sync.WaitGroup
}

func (c *cluster) openWatches(ctx context.Context, path string, n int) (*watches, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watches{stop: cancel}
	for range n {
		resp, err := c.do(ctx, http.MethodGet, path, jsonType, nil)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("opening a watch: %w", err)
		}
		w.wg.Go(func() {
			defer resp.Body.Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := resp.Body.Read(buf)
				w.events.Add(int64(bytes.Count(buf[:n], []byte("\n")))) // one line an event
				if err != nil {
					w.ended.Add(1)
					return
				}
			}
		})
	}
	return w, nil
}

// settle waits until nothing more arrives.
func (w *watches) settle(ctx context.Context) error {
	for last := int64(-1); last != w.events.Load(); {
		last = w.events.Load()
		if err := sleep(ctx, 400*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (w *watches) close() {
	w.stop()
	w.wg.Wait()
}
