package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

const (
	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
)

// measureReads lists many pods, and lets many watchers see what happens to a few objects.
func measureReads(ctx context.Context, b *bench) (_ []figure, err error) {
	replicas, watchers, during := 500, 1000, 8*time.Second
	if b.quick {
		replicas, watchers, during = 100, 200, 3*time.Second
	}
	s, err := b.startServer(ctx, filepath.Join(b.dir, "reads"), "--no-agent", "--hollow-nodes", "100")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(s.dataDir)) }()
	if _, err := s.waitNodes(ctx, 100); err != nil {
		return nil, err
	}
	if _, err := s.deploy(ctx, replicas); err != nil {
		return nil, err
	}
	var out []figure
	for _, kind := range []struct {
		name, accept string
		compress     bool
	}{{"JSON", jsonType, false}, {"protobuf", protobufType, false}, {"JSON, gzip", jsonType, true}} {
		f, err := s.lists(ctx, fmt.Sprintf("list of %d pods, %s", deploymentCount*replicas, kind.name), kind.accept, kind.compress, during)
		if err != nil {
			return out, err
		}
		out = append(out, f)
	}
	f, err := s.quietGets(ctx, 60, during)
	if err != nil {
		return out, err
	}
	out = append(out, f)
	wait := b.profiles(ctx, s, "watchers", during)
	f, err = s.fanOut(ctx, watchers, during)
	wait()
	return append(out, f), err
}

// lists reads the list of pods over and over from two clients.
func (s *server) lists(ctx context.Context, what, accept string, compress bool, during time.Duration) (figure, error) {
	config := rest.CopyConfig(s.config)
	config.DisableCompression = !compress
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return figure{}, err
	}
	defer client.CloseIdleConnections()
	before, err := s.cpu()
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	var count, size atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() {
			for time.Since(began) < during && errs[i] == nil {
				var n int64
				n, errs[i] = discard(ctx, client, config.Host+"/api/v1/pods", accept)
				count.Add(1)
				size.Add(n)
			}
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	after, err := s.cpu()
	n := float64(count.Load())
	return figure{what, fmt.Sprintf("%.1f lists/s", n/took), "",
		fmt.Sprintf("%.1f MB each, %.0f ms CPU of the server a list", float64(size.Load())/n/1e6, (after-before).Seconds()*1000/n)}, errors.Join(append(errs, err)...)
}

// discard reads a response to its end and returns its size, as the client sees it.
func discard(ctx context.Context, client *http.Client, url, accept string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return n, err
}

// fanOut changes a few ConfigMaps as fast as it goes while many watchers look on, and counts what they are told.
func (s *server) fanOut(ctx context.Context, watchers int, during time.Duration) (figure, error) {
	const writers = 4
	path := "/api/v1/namespaces/default/configmaps"
	for i := range writers {
		if err := s.send(ctx, http.MethodPost, path, configMap(i, 0)); err != nil {
			return figure{}, err
		}
	}
	// The watchers may end only after everything is counted.
	watching, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var events atomic.Int64
	for range watchers {
		resp, err := s.open(watching, path+"?watch=1&labelSelector=bench", jsonType)
		if err != nil {
			return figure{}, fmt.Errorf("opening a watch: %w", err)
		}
		wg.Go(func() {
			defer resp.Body.Close()
			buf := make([]byte, 32<<10)
			for {
				n, err := resp.Body.Read(buf)
				events.Add(int64(bytes.Count(buf[:n], []byte("\n")))) // one line an event
				if err != nil {
					return
				}
			}
		})
	}
	settle := func() error { // until nothing more arrives
		for last := int64(-1); last != events.Load(); {
			last = events.Load()
			if err := sleep(ctx, 300*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	if err := settle(); err != nil {
		return figure{}, err
	}
	first := events.Load()
	before, err := s.cpu()
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	var writes atomic.Int64
	errs := make([]error, writers)
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			for n := 1; time.Since(began) < during && errs[i] == nil; n++ {
				errs[i] = s.send(ctx, http.MethodPut, fmt.Sprintf("%s/bench-%d", path, i), configMap(i, n))
				writes.Add(1)
			}
		})
	}
	writing.Wait()
	written := time.Since(began)
	told := func() bool { return events.Load()-first >= writes.Load()*int64(watchers) }
	for !told() && time.Since(began) < during+30*time.Second && ctx.Err() == nil {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return figure{}, err
		}
	}
	took := time.Since(began)
	after, err := s.cpu()
	if !told() && err == nil {
		err = fmt.Errorf("%d watchers were told %d events of %d writes", watchers, events.Load()-first, writes.Load())
	}
	n := float64(events.Load() - first)
	return figure{fmt.Sprintf("%d watchers told of every write", watchers), fmt.Sprintf("%.0f events/s", n/took.Seconds()), "",
		fmt.Sprintf("%.0f writes/s; %.1f µs CPU of the server an event", float64(writes.Load())/written.Seconds(), (after-before).Seconds()*1e6/n)}, errors.Join(append(errs, err)...)
}

func configMap(i, n int) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"bench-%d","labels":{"bench":""}},"data":{"n":"%d"}}`, i, n)
}

// send writes an object and reads the answer.
func (s *server) send(ctx context.Context, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, s.config.Host+path, bytes.NewBufferString(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", jsonType)
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return err
}
