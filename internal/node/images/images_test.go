package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// registry is a runtime whose pulls succeed with one login only.
type registry struct {
	*runtime.Fake
	login string   // whose pulls succeed; "" for anybody's
	tried []string // the logins, in order
}

func (r *registry) PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, sandbox *cri.PodSandboxConfig) (string, error) {
	r.tried = append(r.tried, auth.GetUsername())
	if r.login != "" && auth.GetUsername() != r.login {
		return "", errors.New("denied")
	}
	return r.Fake.PullImage(ctx, image, auth, sandbox)
}

// secrets are Secrets by name.
type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if s[name] == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return s[name], nil
}

// logged returns a Secret with a login for a registry.
func logged(user, registry string) *corev1.Secret {
	return &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{
		corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"username":%q,"password":"x"}}}`, registry, user)}}
}

func newStore(t *testing.T, have ...string) (*Store, *registry, secrets) {
	rt := &registry{Fake: runtime.NewFake(runtime.FakeOptions{Images: have})}
	s := secrets{}
	var tasks task.Group // never open: events are not what is tested
	return New(Settings{Runtime: rt, Secrets: s, Log: slog.New(slog.DiscardHandler),
		Events: events.New(events.Settings{Client: clienttest.New(t), Tasks: &tasks, Node: "n1"})}), rt, s
}

func TestPullPolicies(t *testing.T) {
	for name, tc := range map[string]struct {
		image  string
		policy corev1.PullPolicy
		pulls  int
		reason string
	}{
		"present":                        {"have:1", corev1.PullIfNotPresent, 0, ""},
		"present under its full name":    {"docker.io/library/have:1", corev1.PullIfNotPresent, 0, ""},
		"absent":                         {"lack:1", corev1.PullIfNotPresent, 1, ""},
		"present, but to be asked for":   {"have:1", corev1.PullAlways, 1, ""},
		"present, and never to be got":   {"have:1", corev1.PullNever, 0, ""},
		"absent, and never to be got":    {"lack:1", corev1.PullNever, 0, lifecycle.ReasonErrImageNeverPull},
		"a name that cannot be an image": {"UPPER:1", corev1.PullIfNotPresent, 0, "InvalidImageName"},
	} {
		t.Run(name, func(t *testing.T) {
			store, rt, _ := newStore(t, "docker.io/library/have:1")
			image, err := store.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Name: "c", Image: tc.image, ImagePullPolicy: tc.policy}, nil)
			var start *lifecycle.StartError
			switch {
			case tc.reason == "" && (err != nil || image == nil):
				t.Errorf("%v, %v", image, err)
			case tc.reason != "" && (!errors.As(err, &start) || start.Reason != tc.reason || start.Retry == 0):
				t.Errorf("%+v, want %s", err, tc.reason)
			}
			if len(rt.tried) != tc.pulls {
				t.Errorf("pulled %d times, want %d", len(rt.tried), tc.pulls)
			}
		})
	}
}

func TestEveryLoginIsTried(t *testing.T) {
	store, rt, have := newStore(t)
	have["wrong"], have["right"] = logged("wrong", "reg.example"), logged("right", "reg.example")
	pod := &corev1.Pod{Spec: corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "missing"}, {Name: "wrong"}, {Name: "right"}}}}
	c := &corev1.Container{Name: "c", Image: "reg.example/a:1", ImagePullPolicy: corev1.PullIfNotPresent}
	rt.login = "right"
	if _, err := store.Ensure(t.Context(), pod, c, nil); err != nil || !slices.Equal(rt.tried, []string{"wrong", "right"}) {
		t.Errorf("%v, tried %v", err, rt.tried)
	}
	rt.login, rt.tried = "nobody", nil
	c.Image = "reg.example/b:1"
	_, err := store.Ensure(t.Context(), pod, c, nil)
	var start *lifecycle.StartError
	if !errors.As(err, &start) || start.Reason != lifecycle.ReasonErrImagePull || !strings.Contains(start.Message, "denied") {
		t.Errorf("%+v", err)
	}
	rt.tried = nil
	if _, err := store.Ensure(t.Context(), &corev1.Pod{}, c, nil); err == nil || !slices.Equal(rt.tried, []string{""}) {
		t.Errorf("%v, tried %q: a pod without logins pulls without one", err, rt.tried)
	}
}

func TestVolumesOfImages(t *testing.T) {
	store, rt, _ := newStore(t, "docker.io/library/have:1")
	volume := func(reference string, policy corev1.PullPolicy) corev1.Volume {
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: reference, PullPolicy: policy}}}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "other"}, volume("have:1", corev1.PullIfNotPresent), volume("lack", corev1.PullIfNotPresent)}}}
	ids, err := store.EnsureVolumes(t.Context(), pod, nil)
	if err != nil || len(ids) != 2 || ids["have:1"] == "" || ids["lack"] == "" || len(rt.tried) != 1 {
		t.Errorf("%v, %v, pulled %d", ids, err, len(rt.tried))
	}
	pod.Spec.Volumes = []corev1.Volume{volume("never", corev1.PullNever)}
	if _, err := store.EnsureVolumes(t.Context(), pod, nil); err == nil {
		t.Error("an image that is absent is a volume")
	}
}

func TestImagesThatPodsUseAreKept(t *testing.T) {
	store, rt, _ := newStore(t, "docker.io/library/volume:latest", "x:1", "y:1", "z:1")
	pods := []*corev1.Pod{{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{}, {VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "volume"}}}}}}}
	for _, tc := range []struct {
		percent, left int
		why           string
	}{
		{84, 4, "the disk is not full enough"},
		{90, 2, "90 -> 84 -> 78 percent: two are enough"},
		{200, 1, "whatever is left unused goes"},
		{200, 1, "nothing is left that could go"},
	} {
		percent := tc.percent
		err := store.Collect(t.Context(), pods, 85, 80, func() (int, error) { p := percent; percent -= 6; return p, nil })
		left, listErr := rt.ListImages(t.Context(), nil)
		if err != nil || listErr != nil || len(left) != tc.left {
			t.Errorf("%s: %v %v, %d images are left, want %d", tc.why, err, listErr, len(left), tc.left)
		}
	}
	broken := errors.New("the disk cannot be measured")
	if err := store.Collect(t.Context(), nil, 85, 80, func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestCredentials(t *testing.T) {
	s := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{
		"https://index.docker.io/v1/":{"auth":"aHViOnB3"}, "reg.example:5000":{"username":"any","password":"x"}, "reg.example:5000/team":{"username":"team","password":"x"},
		"*.wild.example":{"username":"wild","password":"x"}}}`)}}
	for image, want := range map[string]string{
		"docker.io/library/nginx:1": "hub", "reg.example:5000/other/a:1": "any", "reg.example:5000/team/a:1": "team any", "reg.example:5000/teams/a:1": "any",
		"a.wild.example/x:1": "wild", "b.a.wild.example/x:1": "wild", "elsewhere.example/x:1": "",
	} {
		var got []string
		for _, a := range matching(logins(s), image) {
			got = append(got, a.Username)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", image, got, want)
		}
	}
	if l := logins(&corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("{")}}); l != nil {
		t.Errorf("a broken secret gave %v", l)
	}
}

func TestLeastRecentImages(t *testing.T) {
	t0 := time.Unix(1000, 0)
	all := []*cri.Image{{Id: "used", RepoTags: []string{"a:1"}}, {Id: "new"}, {Id: "pinned", Pinned: true}, {Id: "old"}, {Id: "never"}}
	out := leastRecent(all, map[string]bool{"a:1": true}, map[string]time.Time{"new": t0.Add(time.Hour), "old": t0})
	var got []string
	for _, i := range out {
		got = append(got, i.Id)
	}
	if strings.Join(got, " ") != "never old new" {
		t.Errorf("%v", got)
	}
}
