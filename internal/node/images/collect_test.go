package images

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// disk is a disk that each removed image makes emptier by a step.
type disk struct{ percent, step int }

func (d *disk) usage() (int, error) {
	p := d.percent
	d.percent -= d.step
	return p, nil
}

func volumeOf(references ...string) []*corev1.Pod {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "other"}}}}
	for _, r := range references {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: r}}})
	}
	return []*corev1.Pod{pod}
}

// tags returns the images that are left.
func (r *registry) tags(t *testing.T) string {
	t.Helper()
	all, err := r.ListImages(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, i := range all {
		out = append(out, i.RepoTags...)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// https://kubernetes.io/docs/concepts/architecture/garbage-collection/#container-image-lifecycle
func TestImagesThatPodsUseAreKept(t *testing.T) {
	store, rt, _ := newStore(t, "docker.io/library/volume:latest", "x:1", "y:1", "z:1")
	pods := volumeOf("volume")
	for _, tc := range []struct {
		percent, left int
		why           string
	}{
		{84, 4, "the disk is not full enough"},
		{90, 2, "90 -> 84 -> 78 percent: two are enough"},
		{200, 1, "whatever is left unused goes"},
		{200, 1, "nothing is left that could go"},
	} {
		d := disk{tc.percent, 6}
		err := store.Collect(t.Context(), pods, 85, 80, d.usage)
		if left := strings.Fields(rt.tags(t)); err != nil || len(left) != tc.left {
			t.Errorf("%s: %v, %v are left, want %d", tc.why, err, left, tc.left)
		}
	}
	broken := errors.New("the disk cannot be measured")
	if err := store.Collect(t.Context(), nil, 85, 80, func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// An image that a pod mounts is used, however the pod names it.
func TestVolumesUseImagesByAnyName(t *testing.T) {
	const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	i := &cri.Image{Id: "sha256:" + hex, RepoTags: []string{"docker.io/library/app:1"}, RepoDigests: []string{"docker.io/library/app@sha256:" + hex}}
	for reference, want := range map[string]bool{
		"app:1": true, "docker.io/library/app:1": true, "app@sha256:" + hex: true, "app:1@sha256:" + hex: true, "app:9@sha256:" + hex: true, "sha256:" + hex: true,
		"app": false, "app:2": false, "other@sha256:" + hex: false, "UPPER": false, "sha256:0123": false,
	} {
		inUse := map[string]bool{}
		volumeImages(volumeOf(reference), inUse)
		if got := uses(i, inUse); got != want {
			t.Errorf("%s: in use %v, want %v", reference, got, want)
		}
	}
}

func TestTheLongestUnusedGoesFirst(t *testing.T) {
	now := time.Unix(100_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	records := map[string]record{
		"yesterday":   {used: ago(24 * time.Hour)},
		"an hour ago": {used: ago(time.Hour)},
		"new":         {seen: ago(time.Minute)},
		"old":         {seen: ago(3 * time.Minute)},
		"wanted":      {wanted: ago(time.Second), used: ago(time.Second)},
		"pinned":      {},
		"in use":      {},
		"never":       {},
	}
	var all []*cri.Image
	for _, id := range []string{"in use", "an hour ago", "new", "old", "wanted", "pinned", "never", "yesterday"} {
		all = append(all, &cri.Image{Id: id, Pinned: id == "pinned"})
	}
	var got []string
	for _, i := range removable(all, map[string]bool{"in use": true}, records, now) {
		got = append(got, i.Id)
	}
	if want := []string{"never", "old", "yesterday", "an hour ago"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What counts is when a container last had it, not when the container was started.
func TestAnImageIsUsedAsLongAsItsContainerIsThere(t *testing.T) {
	t0 := time.Unix(1000, 0)
	a, b := &cri.Image{Id: "a", RepoTags: []string{"a:1"}}, &cri.Image{Id: "b"}
	all := []*cri.Image{a, b}
	records := noted(nil, all, map[string]bool{"a:1": true, "b": true}, nil, t0)
	records = noted(records, all, map[string]bool{"a:1": true}, nil, t0.Add(time.Hour))
	records = noted(records, append(all, &cri.Image{Id: "c"}), nil, map[string]time.Time{"b": t0.Add(90 * time.Minute)}, t0.Add(2*time.Hour))
	for id, want := range map[string]record{
		"a": {used: t0.Add(time.Hour)},
		"b": {used: t0.Add(90 * time.Minute), wanted: t0.Add(90 * time.Minute)},
		"c": {seen: t0.Add(2 * time.Hour)},
	} {
		if records[id] != want {
			t.Errorf("%s: %+v, want %+v", id, records[id], want)
		}
	}
	if records = noted(records, all[:1], nil, nil, t0); len(records) != 1 {
		t.Errorf("%v: images that are gone are forgotten", records)
	}
}

// Two minutes are imageMinimumGCAge's default (KubeletConfiguration).
func TestAnImageThatWasJustPulledStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, rt, _ := newStore(t, "there:1", "docker.io/library/asked:1")
		full := func() error {
			d := disk{percent: 99}
			return store.Collect(t.Context(), nil, 85, 0, d.usage)
		}
		asked := &corev1.Container{Name: "c", Image: "asked:1", ImagePullPolicy: corev1.PullIfNotPresent}
		if _, err := store.Ensure(t.Context(), &corev1.Pod{}, asked, nil); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			after time.Duration
			left  string
		}{
			{0, "docker.io/library/asked:1"}, // "there" was there before the agent and is not new
			{time.Minute, "docker.io/library/asked:1 docker.io/library/new:1"},
			{time.Minute, "docker.io/library/new:1"},
			{time.Minute, ""},
		} {
			time.Sleep(tc.after)
			if strings.Contains(tc.left, "new") && !strings.Contains(rt.tags(t), "new") {
				if _, err := rt.PullImage(t.Context(), &cri.ImageSpec{Image: "docker.io/library/new:1"}, nil, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := full(); err != nil || rt.tags(t) != tc.left {
				t.Errorf("%v, left is %q, want %q", err, rt.tags(t), tc.left)
			}
		}
	})
}

// stuck is a runtime that cannot remove one image.
type stuck struct {
	*registry
	id string
}

var errBusy = errors.New("device or resource busy")

func (s stuck) RemoveImage(ctx context.Context, image *cri.ImageSpec) error {
	if image.Image == s.id {
		return errBusy
	}
	return s.registry.RemoveImage(ctx, image)
}

func TestAnImageThatCannotBeRemovedDoesNotKeepTheOthers(t *testing.T) {
	store, rt, _ := newStore(t, "a:1", "b:1", "c:1")
	held, err := rt.ImageStatus(t.Context(), &cri.ImageSpec{Image: "b:1"})
	if err != nil {
		t.Fatal(err)
	}
	store.Runtime = stuck{rt, held.Id}
	d := disk{percent: 99}
	if err := store.Collect(t.Context(), nil, 85, 80, d.usage); !errors.Is(err, errBusy) || !strings.Contains(err.Error(), held.Id) {
		t.Errorf("%v, want what could not be removed", err)
	}
	if left := rt.tags(t); left != "b:1" {
		t.Errorf("%s are left", left)
	}
}
