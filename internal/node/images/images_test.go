package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

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
	asked []string // the images that pulls named, in order
}

func (r *registry) PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, sandbox *cri.PodSandboxConfig) (string, error) {
	r.tried, r.asked = append(r.tried, auth.GetUsername()), append(r.asked, image.Image)
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

// The runtime is asked for a whole name. An ID is no name: it is found, and is not made docker.io/library/sha256:ID.
func TestWhatTheRuntimeIsAskedFor(t *testing.T) {
	const id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for image, want := range map[string]string{
		"redis":                  "docker.io/library/redis:latest",
		"redis:7":                "docker.io/library/redis:7",
		"team/app":               "docker.io/team/app:latest",
		"localhost/app:1":        "localhost/app:1",
		"reg.example:5000/a":     "reg.example:5000/a:latest",
		"redis@" + id:            "docker.io/library/redis@" + id,
		"redis:7@" + id:          "docker.io/library/redis:7@" + id,
		id:                       id,
		"sha256:0123":            "docker.io/library/sha256:0123",
		"reg.example/sha256:012": "reg.example/sha256:012",
	} {
		if got, err := specOf(image); err != nil || got.Image != want || got.UserSpecifiedImage != image {
			t.Errorf("%s: %v, %v, want %s", image, got, err, want)
		}
	}
	for _, image := range []string{"", "UPPER", "a:b:c", "a@sha256:12", id[len("sha256:"):]} {
		if got, err := specOf(image); err == nil {
			t.Errorf("%q: %v, want an error", image, got)
		}
	}
}

// imagePullPolicy Never with an image's ID, as `knarr image ls` and the pod's status show it.
func TestAnImageThatIsThereIsFoundByItsID(t *testing.T) {
	store, rt, _ := newStore(t, "docker.io/library/have:1")
	have, err := rt.ImageStatus(t.Context(), &cri.ImageSpec{Image: "docker.io/library/have:1"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Name: "c", Image: have.Id, ImagePullPolicy: corev1.PullNever}, nil)
	if err != nil || got.GetId() != have.Id {
		t.Errorf("%v, %v", got, err)
	}
}

// What a runtime that does not answer, or that loses what it pulled, makes of a container (pkg/kubelet/images, types.go has the reasons).
func TestTheRuntimeFails(t *testing.T) {
	broken := errors.New("the runtime is gone")
	for name, tc := range map[string]struct {
		op     string
		reason string
	}{
		"it cannot be asked": {"ImageStatus", "ImageInspectError"},
		"it cannot pull":     {"PullImage", lifecycle.ReasonErrImagePull},
	} {
		t.Run(name, func(t *testing.T) {
			store, rt, _ := newStore(t)
			rt.Fake = runtime.NewFake(runtime.FakeOptions{Fail: func(op, _ string) error {
				if op == tc.op {
					return broken
				}
				return nil
			}})
			_, err := store.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Name: "c", Image: "app:1", ImagePullPolicy: corev1.PullIfNotPresent}, nil)
			var start *lifecycle.StartError
			if !errors.As(err, &start) || start.Reason != tc.reason || !strings.Contains(start.Message, broken.Error()) || start.Retry == 0 {
				t.Errorf("%+v, want %s", err, tc.reason)
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

// A volume that names an image that cannot be one fails as a container's image does.
func TestVolumesOfImagesFollowTheirPolicy(t *testing.T) {
	store, rt, _ := newStore(t, "docker.io/library/have:1")
	pod := &corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{
		{Name: "a", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "have:1", PullPolicy: corev1.PullAlways}}}}}}
	if _, err := store.EnsureVolumes(t.Context(), pod, nil); err != nil || !slices.Equal(rt.asked, []string{"docker.io/library/have:1"}) {
		t.Errorf("%v, pulled %v: Always asks at every start", err, rt.asked)
	}
	pod.Spec.Volumes[0].Image.Reference = "UPPER"
	var start *lifecycle.StartError
	if _, err := store.EnsureVolumes(t.Context(), pod, nil); !errors.As(err, &start) || start.Reason != "InvalidImageName" {
		t.Errorf("%v", err)
	}
	if ids, err := store.EnsureVolumes(t.Context(), &corev1.Pod{}, nil); err != nil || ids != nil {
		t.Errorf("%v, %v: a pod without such volumes", ids, err)
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
	old := &corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{corev1.DockerConfigKey: []byte(`{"reg.example":{"username":"old","password":"x"}}`)}}
	if got := matching(logins(old), "reg.example/a:1"); len(got) != 1 || got[0].Username != "old" {
		t.Errorf("kubernetes.io/dockercfg: %v", got)
	}
	if got := logins(&corev1.Secret{Type: corev1.SecretTypeOpaque, Data: old.Data}); got != nil {
		t.Errorf("a Secret of another type is a login: %v", got)
	}
	if l := logins(&corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("{")}}); l != nil {
		t.Errorf("a broken secret gave %v", l)
	}
}
