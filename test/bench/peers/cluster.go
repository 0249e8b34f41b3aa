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
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	startTimeout = 90 * time.Second
	apiAddress   = "127.0.0.1:6443"
	nodeAddress  = "192.0.2.1" // for documentation (RFC 5737); what the API tells pods, which nobody here asks

	jsonType       = "application/json"
	mergePatchType = "application/merge-patch+json"
	protobufType   = "application/vnd.kubernetes.protobuf"
)

// cluster is a control plane that runs, and perhaps kwok beside it.
type cluster struct {
	system     string
	dir        string
	kubeconfig string
	config     *rest.Config
	http       *http.Client
	ready      time.Duration // from the start of its first process to a ready API
	parts      []*process    // the control plane: what is measured
	kwok       *process      // plays the nodes; nil where nobody does or the control plane itself
}

// startCluster starts a control plane in a directory of its own. hollow is how many nodes a Knarr server plays itself.
func (b *bench) startCluster(ctx context.Context, system string, hollow int) (*cluster, error) {
	return b.startIn(system, func(c *cluster) error {
		if system == kubernetes {
			return b.startKubernetes(ctx, c)
		}
		return b.startKnarr(ctx, c, hollow)
	})
}

// startAPI starts what serves the API: of Kubernetes nothing else, of Knarr, which is one process, all.
func (b *bench) startAPI(ctx context.Context, system string) (*cluster, error) {
	return b.startIn(system, func(c *cluster) error {
		if system == kubernetes {
			_, err := b.startAPIServer(ctx, c)
			return err
		}
		return b.startKnarr(ctx, c, 0)
	})
}

func (b *bench) startIn(system string, start func(*cluster) error) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, system+"-")
	if err != nil {
		return nil, err
	}
	c := &cluster{system: system, dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig")}
	if err := start(c); err != nil {
		_ = c.stop() // why it did not start says more than how it ended
		return nil, err
	}
	return c, nil
}

func (b *bench) startKnarr(ctx context.Context, c *cluster, hollow int) error {
	args := []string{"server", "--data-dir", filepath.Join(c.dir, "data"), "--listen", apiAddress, "--no-agent", "--node-ip", nodeAddress,
		"--cluster-cidr", "100.64.0.0/10", // a block for each of a thousand nodes
		"--log-level", "warn", "--write-kubeconfig", c.kubeconfig}
	if hollow > 0 {
		args = append(args, "--hollow-nodes", fmt.Sprint(hollow))
	}
	began := time.Now()
	if err := c.start("knarr", b.knarr, args...); err != nil {
		return err
	}
	return c.waitReady(ctx, began)
}

// start adds a part of the control plane.
func (c *cluster) start(name, executable string, args ...string) error {
	p, err := startProcess(c.dir, name, executable, args...)
	if err == nil {
		c.parts = append(c.parts, p)
	}
	return err
}

// waitReady waits until the API says that it is ready and notes how long that took.
func (c *cluster) waitReady(ctx context.Context, began time.Time) error {
	err := c.wait(ctx, "the API to be ready", startTimeout, 2*time.Millisecond, c.connect)
	c.ready = time.Since(began)
	return err
}

// wait asks again and again until there is no error, and gives up when a process of the cluster has ended.
func (c *cluster) wait(ctx context.Context, what string, patience, pause time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		for _, p := range c.parts {
			select {
			case <-p.done:
				return fmt.Errorf("waiting for %s: %s ended: %v\n%s", what, p.name, p.err, p.tail())
			default:
			}
		}
		if sleep(ctx, pause) != nil {
			return fmt.Errorf("waited %v for %s: %w", patience, what, err)
		}
	}
}

func (c *cluster) connect(ctx context.Context) error {
	if c.http == nil {
		config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
		if err != nil {
			return err
		}
		config.QPS, config.Burst = -1, -1 // no limits of the client's own
		config.DisableCompression = true  // a machine speaks to itself
		if c.http, err = rest.HTTPClientFor(config); err != nil {
			return err
		}
		c.config = config
	}
	body, err := c.get(ctx, "/readyz", "")
	if err == nil && string(body) != "ok" {
		err = fmt.Errorf("/readyz says %q", body)
	}
	return err
}

// errConflict is the answer to a write that lost against others.
var errConflict = errors.New("conflict")

// do sends a request and returns the response if it is a good one. Its body must be closed.
func (c *cluster) do(ctx context.Context, method, path, accept string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.config.Host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	switch {
	case method == http.MethodPatch:
		req.Header.Set("Content-Type", mergePatchType)
	case body != nil:
		req.Header.Set("Content-Type", jsonType)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // for the message only
		err := fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
		if resp.StatusCode == http.StatusConflict {
			err = errors.Join(errConflict, err)
		}
		return nil, err
	}
	return resp, nil
}

func (c *cluster) get(ctx context.Context, path, accept string) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, path, accept, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// send writes an object and reads the answer to its end.
func (c *cluster) send(ctx context.Context, method, path string, body []byte) error {
	resp, err := c.do(ctx, method, path, jsonType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// memory and cpu are those of the control plane, all its processes together.
func (c *cluster) memory() (memory, error) {
	var sum memory
	for _, p := range c.parts {
		m, err := p.memory()
		if err != nil {
			return sum, err
		}
		sum.resident += m.resident
		sum.anonymous += m.anonymous
	}
	return sum, nil
}

func (c *cluster) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range c.parts {
		d, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// used is the processor time of the control plane, and of the load generator that shares the machine with it (0 where there is none).
func (c *cluster) used() (plane, kwok time.Duration, err error) {
	plane, err = c.cpu()
	if err == nil && c.kwok != nil {
		kwok, err = c.kwok.cpu()
	}
	return plane, kwok, err
}

// stop ends every process, the last one first, and removes the directory.
func (c *cluster) stop() error {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	var errs []error
	if c.kwok != nil {
		errs = append(errs, c.kwok.stop())
	}
	for i := len(c.parts) - 1; i >= 0; i-- {
		errs = append(errs, c.parts[i].stop())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
