package upkeep

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// writeLog puts text at the end of the log of a worker's container.
func (r *room) writeLog(w *pod.Worker, text string) string {
	r.t.Helper()
	path := w.LogPath("c", 0)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// containerLogMaxSize and containerLogMaxFiles (https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation).
func TestLogsAreRotatedByTheirLength(t *testing.T) {
	inRoom(t, runtime.FakeOptions{}, func(r *room) {
		w := r.runs("a")
		path := r.writeLog(w, "123456789")
		files := func() int {
			all, err := filepath.Glob(path + "*")
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		r.beat()
		if got, err := os.ReadFile(path); err != nil || string(got) != "123456789" {
			t.Errorf("a log that is short enough was touched: %q, %v", got, err)
		}
		for beat, want := range []int{1, 2, 2, 2} { // the runtime of this test begins no file; three stand with the new one
			r.writeLog(w, "0123456789")
			r.beat()
			if files() != want {
				t.Errorf("after rotation %d there are %d files besides the new one, want %d", beat+1, files(), want)
			}
			r.wait(10 * time.Second)
		}
	})
}

// Nothing is lost if the runtime does not begin a new file, and other pods' logs are looked after.
func TestALogThatCannotBeRotatedStays(t *testing.T) {
	var stuck string
	opts := runtime.FakeOptions{Fail: func(method, id string) error {
		if method == "ReopenContainerLog" && id == stuck {
			return errors.New("the shim is gone")
		}
		return nil
	}}
	inRoom(t, opts, func(r *room) {
		a, b := r.runs("a"), r.runs("b")
		stuck = a.Running()[0].ID
		kept, moved := r.writeLog(a, "0123456789"), r.writeLog(b, "0123456789")
		r.beat()
		if got, err := os.ReadFile(kept); err != nil || string(got) != "0123456789" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := os.Stat(moved); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: the other pod's log was not rotated", err)
		}
		if !strings.Contains(r.log.String(), "the shim is gone") {
			t.Errorf("nobody is told:\n%s", r.log)
		}
	})
}

// Five minutes are the kubelet's period (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#containers-images).
func TestImagesAreLookedAtEveryFiveMinutes(t *testing.T) {
	inRoom(t, runtime.FakeOptions{Images: []string{"old:1"}}, func(r *room) {
		r.ImageGCHigh, r.ImageGCLow = 0, 0 // whatever this machine's disk is like
		left := func() int {
			all, err := r.rt.ListImages(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return len(all)
		}
		r.beat()
		if left() != 0 {
			t.Fatal("an unused image stays on a full disk")
		}
		if _, err := r.rt.PullImage(context.Background(), &cri.ImageSpec{Image: "new:1"}, nil, nil); err != nil {
			t.Fatal(err)
		}
		for at := 10 * time.Second; at <= 10*time.Minute; at += 10 * time.Second {
			r.wait(10 * time.Second)
			r.beat()
			// It is noticed after five minutes, and is old enough when it is looked at again.
			if stays := at < 10*time.Minute; (left() == 1) != stays {
				t.Fatalf("after %s there are %d images", at, left())
			}
		}
	})
}

func TestAnIdleKeeperTendsNothing(t *testing.T) {
	inRoom(t, runtime.FakeOptions{Images: []string{"old:1"}}, func(r *room) {
		path := r.writeLog(r.runs("a"), "0123456789")
		r.ImageGCHigh, r.ImageGCLow = 0, 0
		r.memory["a"], r.left.Memory = 1<<30, lifecycle.Room{Left: 1, Total: 1 << 30}
		r.Idle.Store(true)
		r.beat()
		if _, err := os.Stat(path); err != nil || r.evicted() != "" {
			t.Errorf("%v, evicted %q", err, r.evicted())
		}
		if hollow := New(Settings{Hollow: true}); !hollow.Idle.Load() {
			t.Error("a hollow node's keeper is not idle")
		}
	})
}

func emptyDir(limit string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		source := &corev1.EmptyDirVolumeSource{}
		if limit != "" {
			q := resource.MustParse(limit)
			source.SizeLimit = &q
		}
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: source}})
	}
}

// https://kubernetes.io/docs/concepts/storage/ephemeral-storage/#resource-emphemeralstorage-consumption: an emptyDir's sizeLimit, a
// container's limit, which counts its log, and the pod's, which counts all.
func TestPodsThatExceedTheirDiskAreEvicted(t *testing.T) {
	inRoom(t, runtime.FakeOptions{}, func(r *room) {
		r.runs("a", emptyDir("1Ki"))
		logs := r.runs("b", sized("", "ephemeral-storage=1Mi"))
		r.runs("c", emptyDir(""))
		r.MaxLogSize = 1 << 30
		r.volumes.bytes["a"], r.volumes.bytes["c"] = 1<<10, 1<<30
		r.writeLog(logs, strings.Repeat("x", 1000))
		r.beat()
		if got := r.evicted(); got != "" {
			t.Errorf("evicted %s: none has more than it may", got)
		}
		r.wait(time.Minute)
		r.volumes.bytes["a"]++
		r.writeLog(logs, strings.Repeat("x", 1<<21))
		r.beat()
		r.wait(time.Second)
		if got := r.evicted(); got != "a b" {
			t.Errorf("evicted %q, want those that exceed their limits; that of no limit stays", got)
		}
	})
}

func short(memory, disk bool) lifecycle.Rooms {
	var out lifecycle.Rooms
	if memory {
		out.Memory = lifecycle.Room{Left: 1 << 20, Total: 1 << 30}
	}
	if disk {
		out.Disk = lifecycle.Room{Left: 1, Total: 100}
	}
	return out
}

// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#pod-selection-for-kubelet-eviction: usage above the
// request, then priority, then how far above.
func TestTheOrderOfEvictions(t *testing.T) {
	priority := func(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }
	for name, tc := range map[string]struct {
		left   lifecycle.Rooms
		a, b   []func(*corev1.Pod)
		want   string
		reason string
	}{
		"within its request goes last":    {short(true, false), []func(*corev1.Pod){sized("memory=2Gi", "")}, []func(*corev1.Pod){sized("memory=10Mi", "")}, "b", "memory"},
		"the higher priority goes last":   {short(true, false), []func(*corev1.Pod){priority(10)}, []func(*corev1.Pod){priority(5)}, "b", "memory"},
		"more above its request is first": {short(true, false), []func(*corev1.Pod){sized("memory=10Mi", "")}, []func(*corev1.Pod){sized("memory=20Mi", "")}, "a", "memory"},
		"on disk the same":                {short(false, true), []func(*corev1.Pod){emptyDir(""), sized("ephemeral-storage=2Gi", "")}, []func(*corev1.Pod){emptyDir("")}, "b", "ephemeral-storage"},
		"memory comes before disk":        {short(true, true), []func(*corev1.Pod){emptyDir(""), sized("ephemeral-storage=2Gi", "")}, []func(*corev1.Pod){emptyDir(""), sized("memory=2Gi", "")}, "a", "memory"},
		"nothing is short":                {short(false, false), nil, nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			inRoom(t, runtime.FakeOptions{}, func(r *room) {
				r.runs("a", tc.a...)
				r.runs("b", tc.b...)
				for _, p := range []string{"a", "b"} {
					r.memory[p], r.volumes.bytes[p] = 1<<30, 1<<30
				}
				r.left = tc.left
				r.beat()
				r.left = lifecycle.Rooms{}
				r.wait(time.Second)
				if got := r.evicted(); got != tc.want {
					t.Fatalf("evicted %q, want %q\n%s", got, tc.want, r.log)
				}
				if tc.want == "" {
					return
				}
				p := r.pod(tc.want)
				status := r.set.Get(p.UID).Reported()
				if status.Phase != corev1.PodFailed || status.Message != "The node was low on resource: "+tc.reason+". " {
					t.Errorf("%s, %q", status.Phase, status.Message)
				}
				if c := p.Status.Conditions; len(c) != 1 || c[0].Type != corev1.DisruptionTarget || c[0].Reason != "TerminationByKubelet" || c[0].Status != corev1.ConditionTrue {
					t.Errorf("conditions %+v, want DisruptionTarget", c)
				}
			})
		})
	}
}

// Critical pods stay (https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/).
func TestWhenNoPodCanGoNobodyIsEvicted(t *testing.T) {
	inRoom(t, runtime.FakeOptions{}, func(r *room) {
		critical := int32(2_000_000_000)
		r.runs("a", func(p *corev1.Pod) { p.Spec.Priority = &critical })
		r.memory["a"], r.left = 1<<30, short(true, false)
		r.beat()
		if r.evicted() != "" || !strings.Contains(r.log.String(), "no pod can go") {
			t.Errorf("evicted %q\n%s", r.evicted(), r.log)
		}
	})
}

// The condition belongs to the pod that is evicted, not to another that has its name since.
func TestTheConditionIsNotForAnotherPodOfTheName(t *testing.T) {
	inRoom(t, runtime.FakeOptions{}, func(r *room) {
		w := r.runs("a")
		zero := int64(0)
		if err := client.Delete[*corev1.Pod](context.Background(), r.c, w.Key(), metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		other := w.Pod().DeepCopy()
		other.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "a"}
		clienttest.Create(t, r.c, other)
		r.memory["a"], r.left = 1<<30, short(true, false)
		r.beat()
		if s := w.Reported(); s.Reason != lifecycle.ReasonEvicted {
			t.Errorf("the pod that holds the memory stays:\n%s", r.log)
		}
		if c := r.pod("a").Status.Conditions; len(c) != 0 {
			t.Errorf("the other pod has %+v", c)
		}
	})
}

// A pod that is being evicted by somebody else keeps that condition.
func TestTheConditionOfAnEviction(t *testing.T) {
	inRoom(t, runtime.FakeOptions{}, func(r *room) {
		w := r.runs("a")
		r.memory["a"], r.left = 1<<30, short(true, false)
		_, err := client.Mutate(context.Background(), r.c, w.Key(), "status", func(p *corev1.Pod) bool {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", LastTransitionTime: metav1.Now()}}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		r.beat()
		if c := r.pod("a").Status.Conditions; len(c) != 1 || c[0].Reason != "EvictionByEvictionAPI" {
			t.Errorf("%+v", c)
		}
	})
}

// Adding up what pods have on disk may take longer than a lease lasts.
func TestAHeartbeatDoesNotWaitForEvictions(t *testing.T) {
	inRoom(t, runtime.FakeOptions{}, func(r *room) {
		r.runs("a", emptyDir("1Ki"))
		r.volumes.slow = time.Minute
		began := time.Now()
		for range 3 {
			r.Tend(context.Background(), time.Now())
			synctest.Wait()
		}
		if took := time.Since(began); took != 0 || r.volumes.walks != 1 {
			t.Errorf("three heartbeats took %s and measured %d times at once", took, r.volumes.walks)
		}
		r.wait(2 * time.Minute)
		r.beat()
		if r.volumes.walks != 2 {
			t.Errorf("measured %d times, want once more after the first was done", r.volumes.walks)
		}
		r.wait(2 * time.Minute)
	})
}
