package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/node/hollow"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// toil starts a node whose containers end by chance, each after some seconds, one of four with an error. The returned function makes it
// fall silent.
func (w *world) toil(i int, seed uint64) (silence func()) {
	w.t.Helper()
	fake := runtime.NewFake(runtime.FakeOptions{Name: hollow.Name(i), PodCIDR: fmt.Sprintf("100.64.%d.0/24", i), SandboxDelay: time.Second})
	agent, err := node.New(node.Config{
		NodeName: hollow.Name(i), Client: w.agents(hollow.Name(i)), Runtime: fake,
		Tokens: func(context.Context, string, string, *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
			return &authenticationv1.TokenRequest{}, nil
		},
		NodeIPs: []string{fmt.Sprintf("100.127.0.%d", i+1)}, PodCIDRs: []string{fmt.Sprintf("100.64.%d.0/24", i)}, MaxPods: 50,
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("64Gi"),
			corev1.ResourcePods: resource.MustParse("50"), corev1.ResourceEphemeralStorage: resource.MustParse("1Ti")},
		Version: "v1.37.2+knarr", Hollow: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	var both sync.WaitGroup
	both.Go(func() {
		if err := agent.Run(ctx); err != nil && ctx.Err() == nil {
			w.t.Errorf("a node failed: %v", err)
		}
	})
	both.Go(func() {
		chance := rand.New(rand.NewPCG(seed, uint64(i)))
		for ctx.Err() == nil {
			for _, id := range fake.ContainerIDs() {
				if chance.IntN(10) == 0 {
					code := int32(0)
					if chance.IntN(4) == 0 {
						code = 1
					}
					_ = fake.Exit(id, code, "Completed") // one that has ended already stays so
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	})
	w.wg.Go(both.Wait)
	return func() { cancel(); both.Wait() }
}

// ends counts the pods that ended by themselves, whatever becomes of them afterwards.
func (w *world) ends() (count func() (succeeded, failed, deleted int)) {
	var mu sync.Mutex
	phases := map[string]corev1.PodPhase{}
	w.wg.Go(func() {
		client.Follow(w.ctx, slog.New(slog.DiscardHandler), w.Client, api.Pods, client.ListOptions{Namespace: "default"}, func(b client.Batch) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range b.Events {
				p := e.Object.(*corev1.Pod)
				switch uid := string(p.UID); {
				case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
					phases[uid] = p.Status.Phase
				case p.DeletionTimestamp != nil && phases[uid] == "":
					phases[uid] = corev1.PodUnknown
				}
			}
		})
	})
	return func() (succeeded, failed, deleted int) {
		mu.Lock()
		defer mu.Unlock()
		for _, phase := range phases {
			switch phase {
			case corev1.PodSucceeded:
				succeeded++
			case corev1.PodFailed:
				failed++
			default:
				deleted++
			}
		}
		return succeeded, failed, deleted
	}
}

// run makes a Job of n completions, four at a time.
func (w *world) run(name string, n int32, mode batchv1.CompletionMode) {
	w.t.Helper()
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: batchv1.JobSpec{Completions: &n, Parallelism: ptr.To(int32(4)), BackoffLimit: ptr.To(int32(1000)), CompletionMode: &mode,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: ptr.To(int64(5)),
				Containers: []corev1.Container{{Name: "c", Image: "docker.io/library/app:1"}}}}},
	}
	w.until("the Job to be made", time.Minute, func() (bool, any) {
		_, err := w.Create(w.ctx, job.DeepCopy())
		return err == nil || apierrors.IsAlreadyExists(err), err
	})
}

// complete reports whether a Job is Complete.
func (w *world) complete(name string) func() (bool, any) {
	return func() (bool, any) {
		job, err := client.Get[*batchv1.Job](w.ctx, w.Client, api.Key{Namespace: "default", Name: name})
		if err != nil {
			return false, err
		}
		for _, c := range job.Status.Conditions {
			if c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue {
				return true, nil
			}
		}
		return false, fmt.Sprintf("%+v", job.Status)
	}
}

// counted checks the counters of a Job of n completions against the pods that were seen to end.
func (w *world) counted(name string, n int32, ends func() (int, int, int)) {
	w.t.Helper()
	job, err := client.Get[*batchv1.Job](w.ctx, w.Client, api.Key{Namespace: "default", Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	succeeded, failed, deleted := ends()
	s := job.Status
	if s.Succeeded != n || succeeded != int(n) || int(s.Failed) < failed || int(s.Failed) > failed+deleted {
		w.t.Errorf("the Job counts %d succeeded and %d failed; %d succeeded, %d failed and %d were deleted", s.Succeeded, s.Failed, succeeded, failed, deleted)
	}
	pods, err := client.List[*corev1.Pod](w.ctx, w.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range pods {
		if len(p.Finalizers) > 0 {
			w.t.Errorf("pod %s still has the finalizers %v", p.Name, p.Finalizers)
		}
	}
}

// TestJobsCountEveryPodOnce runs Jobs whose pods fail by chance, while the store fails, answers late and loses answers, and a node falls
// silent: every pod is counted once.
func TestJobsCountEveryPodOnce(t *testing.T) {
	for _, mode := range []batchv1.CompletionMode{batchv1.NonIndexedCompletion, batchv1.IndexedCompletion} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprintf("%s/seed=%d", mode, seed), func(t *testing.T) {
				simulate(t, seed, func(w *world) {
					for i := range 2 {
						w.toil(i, seed)
					}
					silence := w.toil(2, seed)
					w.pass(10 * time.Second)
					ends := w.ends()
					w.backend.fail(rates{refuse: 0.1, unknown: 0.1, lose: 0.02, latency: 100 * time.Millisecond})
					w.run("sum", 12, mode)
					w.pass(30 * time.Second)
					silence()
					w.pass(10 * time.Minute)
					w.toil(2, seed) // back without containers: a Job is not complete before the last of its pods has ended
					w.until("the Job to be complete", 2*time.Hour, w.complete("sum"))
					w.backend.fail(rates{})
					w.pass(5 * time.Minute)
					w.counted("sum", 12, ends)
				})
			})
		}
	}
}

// TestJobsCountEveryPodOnceWhenTheLeaderChanges suspends the leader again and again while a Job runs.
func TestJobsCountEveryPodOnceWhenTheLeaderChanges(t *testing.T) {
	rivals(t, func(w *world, first, second *rival) {
		close(first.lead)
		for i := range 3 {
			w.toil(i, 7)
		}
		w.pass(10 * time.Second)
		ends := w.ends()
		w.run("sum", 20, batchv1.NonIndexedCompletion)
		w.pass(7 * time.Second)
		first.backend.freeze()
		w.pass(time.Second)
		close(second.lead)
		w.pass(9 * time.Second)
		first.backend.thaw() // neither is told to stop: they take over from each other
		w.until("the Job to be complete", 2*time.Hour, w.complete("sum"))
		w.pass(time.Minute)
		w.counted("sum", 20, ends)
	})
}
