package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const deploymentCount = 20

var deploymentsResource = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}

func measurePods100(ctx context.Context, b *bench, system string) error {
	return b.measurePods(ctx, system, 100, 250, podRows100)
}

func measurePods1000(ctx context.Context, b *bench, system string) error {
	return b.measurePods(ctx, system, 1000, 500, podRows1000)
}

// measurePods creates Deployments and waits until their status says that all pods are ready.
func (b *bench) measurePods(ctx context.Context, system string, nodes, replicas int, rows podRows) (err error) {
	if b.quick {
		nodes, replicas = nodes/10, replicas/10
	}
	hollow := 0
	if system == knarr {
		hollow = nodes
	}
	c, err := b.startCluster(ctx, system, hollow)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if hollow == 0 {
		if err := b.startKwok(c); err != nil {
			return err
		}
		if err := c.addNodes(ctx, nodes); err != nil {
			return fmt.Errorf("creating nodes: %w", err)
		}
	}
	if err := c.waitNodes(ctx, nodes); err != nil {
		return err
	}
	rest := 20 * time.Second // two renewals of every lease
	if b.quick {
		rest = 3 * time.Second
	}
	if err := sleep(ctx, 5*time.Second); err != nil { // what follows from the registration
		return err
	}
	idle, err := b.idle(ctx, c, rest, rows.name, rows.idle)
	if err != nil {
		return err
	}
	return b.deploy(ctx, c, replicas, rows, idle)
}

// deploy is the load itself. What the nodes' heartbeats cost meanwhile, idle of a core, is not counted for the pods.
func (b *bench) deploy(ctx context.Context, c *cluster, replicas int, rows podRows, idle float64) error {
	before, kwokBefore, err := c.used()
	if err != nil {
		return err
	}
	defer b.profiles(ctx, c, rows.name, 10*time.Second)()
	highest := c.watchMemory(ctx)
	defer highest() // when something fails on the way
	began := time.Now()
	for i := range deploymentCount {
		if err := c.send(ctx, http.MethodPost, "/apis/apps/v1/namespaces/default/deployments", deployment(i, replicas)); err != nil {
			return fmt.Errorf("creating a Deployment: %w", err)
		}
	}
	want := deploymentCount * replicas
	reached, err := c.waitReplicas(ctx, want, b.limit)
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, kwokAfter, err := c.used()
	if err != nil {
		return err
	}
	most, err := highest()
	if err != nil {
		return err
	}
	b.results.add(c.system, rows.memory, most.resident)
	b.results.add(c.system, rows.anonymous, most.anonymous)
	b.results.add(c.system, rows.rate, float64(reached)/took.Seconds())
	if reached < want {
		b.results.note(c.system, rows.rate, fmt.Sprintf("%d of %d Ready when the time limit of %v was over; no CPU for a pod, as the others were worked on too", reached, want, b.limit))
	}
	if reached == want {
		b.results.add(c.system, rows.cpu, max(0, (after-before).Seconds()-idle*took.Seconds())*1000/float64(reached))
		if c.kwok != nil {
			b.results.add(c.system, rows.kwok, (kwokAfter-kwokBefore).Seconds()*1000/float64(reached))
		}
	}
	return c.printParts()
}

// printParts shows which process had how much of it.
func (c *cluster) printParts() error {
	for _, p := range c.parts {
		used, err1 := p.cpu()
		m, err2 := p.memory()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		fmt.Printf("  %s: %.1f s CPU since its start, %.0f MB\n", p.name, used.Seconds(), m.resident)
	}
	return nil
}

// waitReplicas waits until want pods are ready, or for as long as patience, and returns how many were.
func (c *cluster) waitReplicas(ctx context.Context, want int, patience time.Duration) (int, error) {
	ready := map[string]int64{}
	total := 0
	err := c.follow(ctx, deploymentsResource, patience, func(u *unstructured.Unstructured) (bool, error) {
		n, _, err := unstructured.NestedInt64(u.Object, "status", "readyReplicas")
		total += int(n - ready[u.GetName()])
		ready[u.GetName()] = n
		return total == want, err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return total, nil
	}
	return total, err
}

func deployment(i, replicas int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d%02d"},"spec":{"replicas":%d,
"selector":{"matchLabels":{"app":"d%02d"}},"template":{"metadata":{"labels":{"app":"d%02d"}},"spec":{"containers":[{"name":"c",
"image":"docker.io/library/nginx:1","resources":{"requests":{"cpu":"10m","memory":"16Mi"}}}]}}}}`, i, replicas, i, i)
}

// watchMemory looks at the memory of the control plane twice a second until the returned function is called, which says what it was when it was
// the most.
func (c *cluster) watchMemory(ctx context.Context) func() (memory, error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var most memory
	var failed error
	look := func() {
		m, err := c.memory()
		failed = errors.Join(failed, err)
		if m.resident > most.resident {
			most = m
		}
	}
	go func() {
		defer close(done)
		for sleep(ctx, 500*time.Millisecond) == nil && failed == nil {
			look()
		}
	}()
	return func() (memory, error) {
		if ctx.Err() == nil {
			cancel()
			<-done
			look() // a short load may have ended before the first look
		}
		return most, failed
	}
}

// profiles writes a CPU profile of Knarr's next d, and then a heap profile, where -profile says. The returned function waits for them.
func (b *bench) profiles(ctx context.Context, c *cluster, name string, d time.Duration) (wait func()) {
	if b.profile == "" || c.system == kubernetes {
		return func() {}
	}
	done := make(chan error, 1)
	go func() {
		err := os.MkdirAll(b.profile, 0o755)
		for _, p := range []struct{ path, file string }{
			{fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(d.Seconds())), "cpu"},
			{"/debug/pprof/heap?gc=1", "heap"},
		} {
			var body []byte
			if err == nil {
				body, err = c.get(ctx, p.path, "")
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(b.profile, fmt.Sprintf("%s-%s.%s", name, c.system, p.file)), body, 0o644)
			}
		}
		done <- err
	}()
	return func() {
		if err := <-done; err != nil {
			fmt.Println("  no profile:", err)
		}
	}
}
