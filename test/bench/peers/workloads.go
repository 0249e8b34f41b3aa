package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// work is a load of one kind of workload on nodes that pretend.
type work struct {
	rows  workRows
	nodes int
	count int // pods, or Jobs of CronJobs
	// run calls begin when what it has prepared is there, and returns how many of count were reached in b.limit from then on.
	run func(ctx context.Context, b *bench, c *cluster, count int, begin func() error) (reached int, err error)
}

// The kinds of workloads, and how many of each.
const (
	jobCompletions, jobParallelism = 10_000, 1_000
	cronJobCount                   = 1_000
	setReplicas                    = 500
	daemonNodes                    = 1_000
	workNodes                      = 100
)

func measureJob(ctx context.Context, b *bench, system string) error {
	return b.measureWork(ctx, system, work{jobRows, workNodes, jobCompletions, runJob})
}

func measureCronJobs(ctx context.Context, b *bench, system string) error {
	return b.measureWork(ctx, system, work{cronJobRows, workNodes, cronJobCount, runCronJobs})
}

func measureStatefulSet(ctx context.Context, b *bench, system string) error {
	return b.measureWork(ctx, system, work{setRows, workNodes, setReplicas, runStatefulSet})
}

func measureDaemonSet(ctx context.Context, b *bench, system string) error {
	return b.measureWork(ctx, system, work{daemonRows, daemonNodes, daemonNodes, updateDaemonSet})
}

// measureWork starts a cluster, drives the load and measures what it costs, as measurePods does.
func (b *bench) measureWork(ctx context.Context, system string, w work) (err error) {
	if b.quick {
		w.nodes, w.count = w.nodes/10, w.count/10
	}
	hollow := 0
	if system == knarr {
		hollow = w.nodes
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
		if err := c.addNodes(ctx, w.nodes); err != nil {
			return fmt.Errorf("creating nodes: %w", err)
		}
	}
	if err := c.waitNodes(ctx, w.nodes); err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil { // what follows from the registration
		return err
	}
	rest := 10 * time.Second // a renewal of every lease
	before, err := c.cpu()
	if err != nil {
		return err
	}
	if err := sleep(ctx, rest); err != nil {
		return err
	}
	after, err := c.cpu()
	if err != nil {
		return err
	}
	idle := (after - before).Seconds() / rest.Seconds()
	highest := c.watchMemory(ctx)
	defer highest() // when something fails on the way
	reached, took, spent, err := w.measured(ctx, b, c)
	if err != nil {
		return err
	}
	most, err := highest()
	if err != nil {
		return err
	}
	b.results.add(system, w.rows.rate, float64(reached)/took.Seconds())
	b.results.add(system, w.rows.memory, most.resident)
	if reached < w.count {
		b.results.note(system, w.rows.rate, fmt.Sprintf("%d of %d after %v", reached, w.count, took.Round(time.Second)))
	}
	if reached > 0 {
		b.results.add(system, w.rows.cpu, max(0, spent.Seconds()-idle*took.Seconds())*1000/float64(reached))
	}
	return c.printParts()
}

// measured runs the load and returns what it cost the control plane from its beginning.
func (w work) measured(ctx context.Context, b *bench, c *cluster) (reached int, took, spent time.Duration, err error) {
	var before time.Duration
	var began time.Time
	profiled := func() {}
	reached, err = w.run(ctx, b, c, w.count, func() (err error) {
		profiled = b.profiles(ctx, c, w.rows.name, 10*time.Second)
		began = time.Now()
		before, err = c.cpu()
		return err
	})
	if err != nil {
		return 0, 0, 0, err
	}
	took = time.Since(began)
	after, err := c.cpu()
	profiled()
	return reached, took, after - before, err
}

// podOf is the spec of a pod with an application label, for a template.
func podOf(app, spec string) string {
	return fmt.Sprintf(`{"metadata":{"labels":{"app":"%s"}},"spec":{%s"containers":[{"name":"c",
"image":"docker.io/library/nginx:1","resources":{"requests":{"cpu":"10m","memory":"16Mi"}}}]}}`, app, spec)
}

// runJob has a Job run to its end. Its pods end as soon as they run.
func runJob(ctx context.Context, b *bench, c *cluster, count int, begin func() error) (int, error) {
	if err := begin(); err != nil {
		return 0, err
	}
	if err := c.send(ctx, http.MethodPost, "/apis/batch/v1/namespaces/default/jobs", fmt.Appendf(nil, `{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"many"},
"spec":{"completions":%d,"parallelism":%d,"template":%s}}`, count, max(1, count*jobParallelism/jobCompletions), podOf("many", `"restartPolicy":"Never",`))); err != nil {
		return 0, fmt.Errorf("creating the Job: %w", err)
	}
	return c.until(ctx, batch("jobs"), b.limit, func(u *unstructured.Unstructured) (int, error) {
		return number64(u, "status", "succeeded")
	}, count)
}

// runCronJobs has each of many CronJobs make its Job in the same minute, and waits until all of these have ended. The time counts from the minute.
func runCronJobs(ctx context.Context, b *bench, c *cluster, count int, begin func() error) (int, error) {
	due := time.Now().UTC().Add(25 * time.Second).Truncate(time.Minute).Add(time.Minute)
	var next atomic.Int64
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for worker := range errs {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(count) && errs[worker] == nil; i = next.Add(1) {
				errs[worker] = c.send(ctx, http.MethodPost, "/apis/batch/v1/namespaces/default/cronjobs", fmt.Appendf(nil, `{"apiVersion":"batch/v1","kind":"CronJob",
"metadata":{"name":"c%04d"},"spec":{"schedule":"%d %d * * *","timeZone":"Etc/UTC","jobTemplate":{"spec":{"template":%s}}}}`,
					i, due.Minute(), due.Hour(), podOf("cron", `"restartPolicy":"Never",`)))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("creating a CronJob: %w", err)
	}
	if late := time.Since(due); late > 0 {
		return 0, fmt.Errorf("the CronJobs were made %v after their time", late)
	}
	if err := sleep(ctx, time.Until(due)); err != nil {
		return 0, err
	}
	if err := begin(); err != nil {
		return 0, err
	}
	return c.until(ctx, batch("jobs"), b.limit, func(u *unstructured.Unstructured) (int, error) {
		return number64(u, "status", "succeeded")
	}, count)
}

// runStatefulSet makes all pods of a StatefulSet at once.
func runStatefulSet(ctx context.Context, b *bench, c *cluster, count int, begin func() error) (int, error) {
	if err := begin(); err != nil {
		return 0, err
	}
	if err := c.send(ctx, http.MethodPost, "/apis/apps/v1/namespaces/default/statefulsets", fmt.Appendf(nil, `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"set"},
"spec":{"replicas":%d,"podManagementPolicy":"Parallel","selector":{"matchLabels":{"app":"set"}},"template":%s}}`, count, podOf("set", ""))); err != nil {
		return 0, fmt.Errorf("creating the StatefulSet: %w", err)
	}
	return c.until(ctx, apps("statefulsets"), b.limit, func(u *unstructured.Unstructured) (int, error) {
		return number64(u, "status", "readyReplicas")
	}, count)
}

// updateDaemonSet gives a DaemonSet that runs on every node another template, a tenth of the nodes at a time.
func updateDaemonSet(ctx context.Context, b *bench, c *cluster, count int, begin func() error) (int, error) {
	const path = "/apis/apps/v1/namespaces/default/daemonsets"
	if err := c.send(ctx, http.MethodPost, path, fmt.Appendf(nil, `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"each"},
"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":"10%%"}},"selector":{"matchLabels":{"app":"each"}},"template":%s}}`, podOf("each", `"terminationGracePeriodSeconds":0,`))); err != nil {
		return 0, fmt.Errorf("creating the DaemonSet: %w", err)
	}
	ready := func(u *unstructured.Unstructured) (int, error) { return number64(u, "status", "numberReady") }
	if n, err := c.until(ctx, apps("daemonsets"), b.limit, ready, count); err != nil || n < count {
		return 0, errors.Join(err, fmt.Errorf("%d of %d pods of the DaemonSet became ready", n, count))
	}
	if err := begin(); err != nil {
		return 0, err
	}
	if err := c.send(ctx, http.MethodPatch, path+"/each", []byte(`{"spec":{"template":{"metadata":{"annotations":{"version":"2"}}}}}`)); err != nil {
		return 0, fmt.Errorf("changing the DaemonSet: %w", err)
	}
	return c.until(ctx, apps("daemonsets"), b.limit, func(u *unstructured.Unstructured) (int, error) {
		seen, err1 := number64(u, "status", "observedGeneration")
		updated, err2 := number64(u, "status", "updatedNumberScheduled")
		available, err3 := number64(u, "status", "numberAvailable")
		if int64(seen) < u.GetGeneration() {
			updated = 0
		}
		return min(updated, available), errors.Join(err1, err2, err3)
	}, count)
}

func batch(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: resource}
}

func apps(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: resource}
}

func number64(u *unstructured.Unstructured, path ...string) (int, error) {
	n, _, err := unstructured.NestedInt64(u.Object, path...)
	return int(n), err
}

// until follows objects until what they count is want all together, or patience is over, and returns how much it is.
func (c *cluster) until(ctx context.Context, res schema.GroupVersionResource, patience time.Duration, count func(*unstructured.Unstructured) (int, error), want int) (int, error) {
	each, total := map[string]int{}, 0
	err := c.follow(ctx, res, patience, func(u *unstructured.Unstructured) (bool, error) {
		n, err := count(u)
		total += n - each[u.GetName()]
		each[u.GetName()] = n
		return total >= want, err
	})
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return total, nil
	}
	return total, err
}
