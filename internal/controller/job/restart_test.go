package job

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// TestRestartBetweenAnyTwoWrites runs a job whose controller is killed after 0, 1, 2, ... writes, again and again, until it is done: every
// pod is counted once.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	for _, indexedMode := range []bool{false, true} {
		for writes := 1; writes < 9; writes++ {
			t.Run(fmt.Sprintf("indexed %v, %d writes at a time", indexedMode, writes), func(t *testing.T) {
				ct.Run(t, func(c *ct.Cluster) { restarted(c, indexedMode, writes) })
			})
		}
	}
}

func restarted(c *ct.Cluster, indexedMode bool, writes int) {
	ended := map[string]int32{} // how each pod ends, by name
	c.Start(newNode(c.Client, 0, func(p *corev1.Pod) (int32, time.Duration) {
		if _, ok := ended[p.Name]; !ok {
			ended[p.Name] = 0
			if len(ended)%3 == 0 {
				ended[p.Name] = 1
			}
		}
		return ended[p.Name], 2 * time.Second
	}))
	ct.Make(c, newJob("a", 6, 3, func(j *batchv1.Job) {
		j.Spec.BackoffLimit = ptr.To(int32(100))
		if indexedMode {
			byIndex(j)
			j.Spec.BackoffLimit, j.Spec.BackoffLimitPerIndex = nil, ptr.To(int32(20))
		}
	}))
	for range 2000 {
		r := New(&ct.Killed{Client: c.Client, Left: writes}, nil).Reconciler
		_, _ = r.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "a"})
		c.Pass(time.Second)
		if finished(ct.Get[*batchv1.Job](c, ns, "a")) {
			break
		}
	}
	var succeeded, lost int32
	for _, p := range ct.All[*corev1.Pod](c, ns) {
		if tracked(p) {
			c.T.Errorf("pod %s still has the finalizer", p.Name)
		}
		switch p.Status.Phase {
		case corev1.PodSucceeded:
			succeeded++
		case corev1.PodFailed:
			lost++
		}
	}
	j := ct.Get[*batchv1.Job](c, ns, "a")
	if j.Status.Succeeded != 6 || succeeded != 6 || j.Status.Failed != lost || !finished(j) {
		c.T.Errorf("%s; %d pods succeeded and %d failed", status(j), succeeded, lost)
	}
}

// stale is a client that shows a job as it was some time ago.
type stale struct {
	client.Client
	job *batchv1.Job
}

func (s *stale) Get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error) {
	if res == api.Jobs && s.job != nil {
		return s.job, nil
	}
	return s.Client.Get(ctx, res, key)
}

func TestAnOldJobChangesNothing(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		old := ct.Make(c, newJob("a", 4, 2))
		stop := c.Start(New(c.Client, nil))
		c.Start(newNode(c.Client, 0, always(0, 2*time.Second)))
		c.Pass(3500 * time.Millisecond)
		stop()
		before := ct.Get[*batchv1.Job](c, ns, "a")
		view := &stale{Client: c.Client, job: old}
		if _, err := New(view, nil).Reconciler.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "a"}); err == nil {
			t.Error("a status was planned from an old job, and written")
		}
		if after := ct.Get[*batchv1.Job](c, ns, "a"); status(after) != status(before) {
			t.Errorf("%s became %s", status(before), status(after))
		}
		c.Start(New(c.Client, nil))
		c.Pass(time.Minute)
		expect(c, "a", "active 0 ready 0 terminating 0 succeeded 4 failed 0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached")
	})
}

func TestALargeJobCostsWhatChanges(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		writes := &countingWrites{Client: c.Client}
		c.Start(New(writes, nil), newNode(c.Client, 0, func(p *corev1.Pod) (int32, time.Duration) {
			n, _ := strconv.ParseUint(fmt.Sprintf("%x", p.Name[len(p.Name)-2:]), 16, 64)
			return 0, time.Second + time.Duration(n%100)*10*time.Millisecond
		}))
		ct.Make(c, newJob("big", 600, 200))
		c.Pass(time.Minute)
		expect(c, "big", "active 0 ready 0 terminating 0 succeeded 600 failed 0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached")
		if writes.statuses > 250 {
			t.Errorf("the status was written %d times for 600 pods", writes.statuses)
		}
	})
}

type countingWrites struct {
	client.Client
	statuses int
}

func (w *countingWrites) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	w.statuses++
	return w.Client.Update(ctx, obj, sub)
}
