package images

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// Store is the node's images.
type Store struct {
	Settings

	mu      sync.Mutex
	records map[string]record    // by image ID; nil before the first Collect
	wanted  map[string]time.Time // by image ID: when a pod asked for it since the last Collect
}

// Settings are what a store needs.
type Settings struct {
	Runtime runtime.Runtime
	Events  *events.Recorder
	Secrets Secrets
	Log     *slog.Logger
}

// Secrets reads the Secrets that pods name as imagePullSecrets.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// New returns the images of a runtime.
func New(s Settings) *Store { return &Store{Settings: s, wanted: map[string]time.Time{}} }

// Ensure returns the image of a container, pulling it where its policy says so. Errors are *lifecycle.StartError.
func (im *Store) Ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, sandbox *cri.PodSandboxConfig) (*cri.Image, error) {
	spec, err := specOf(c.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", c.Image, c.Image, err)
		im.Events.Warning(pod, c.Name, "InspectFailed", msg)
		return nil, &lifecycle.StartError{Reason: "InvalidImageName", Message: msg, Retry: time.Minute}
	}
	have, err := im.Runtime.ImageStatus(ctx, spec)
	if err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", c.Image, err)
		im.Events.Warning(pod, c.Name, "InspectFailed", msg)
		return nil, startError("ImageInspectError", msg)
	}
	switch {
	case c.ImagePullPolicy == corev1.PullNever && have == nil:
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		im.Events.Warning(pod, c.Name, "ErrImageNeverPull", msg)
		return nil, startError(lifecycle.ReasonErrImageNeverPull, msg)
	case have != nil && c.ImagePullPolicy != corev1.PullAlways:
		im.Events.Normal(pod, c.Name, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
		im.touch(have.Id)
		return have, nil
	}
	return im.pull(ctx, pod, c, spec, sandbox)
}

// specOf returns what the runtime is asked for: a whole name with a tag or digest, or the ID of an image that is there, such as
// sha256:0123…, which is a name, too, if only by its form.
func specOf(image string) (*cri.ImageSpec, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, err
	}
	spec := &cri.ImageSpec{Image: reference.TagNameOnly(named).String(), UserSpecifiedImage: image}
	if _, err := digest.Parse(image); err == nil {
		spec.Image = image
	}
	return spec, nil
}

// EnsureVolumes does the same for the images that are volumes of the pod (KEP-4639), and returns what the runtime calls them by what
// the pod does. As with a container's own image, the pull policy is followed at each start.
func (im *Store) EnsureVolumes(ctx context.Context, pod *corev1.Pod, sandbox *cri.PodSandboxConfig) (map[string]string, error) {
	var out map[string]string
	for i := range pod.Spec.Volumes {
		v := pod.Spec.Volumes[i].Image
		if v == nil {
			continue
		}
		have, err := im.Ensure(ctx, pod, &corev1.Container{Image: v.Reference, ImagePullPolicy: v.PullPolicy}, sandbox)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]string{}
		}
		out[v.Reference] = have.Id
	}
	return out, nil
}

func startError(reason, message string) *lifecycle.StartError {
	return &lifecycle.StartError{Reason: reason, Message: message, Retry: lifecycle.ConfigRetry}
}

// pull pulls with each credential that fits, and without if there is none.
func (im *Store) pull(ctx context.Context, pod *corev1.Pod, c *corev1.Container, spec *cri.ImageSpec, sandbox *cri.PodSandboxConfig) (*cri.Image, error) {
	im.Events.Normal(pod, c.Name, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	began := time.Now()
	auths := im.credentials(ctx, pod, spec.Image)
	if len(auths) == 0 {
		auths = []*cri.AuthConfig{nil}
	}
	var err error
	var ref string
	for _, auth := range auths {
		if ref, err = im.Runtime.PullImage(ctx, spec, auth, sandbox); err == nil {
			break
		}
	}
	if err != nil {
		msg := fmt.Sprintf("failed to pull image %q: %v", c.Image, err)
		if ctx.Err() == nil {
			im.Events.Warning(pod, c.Name, "Failed", fmt.Sprintf("Failed to pull image %q: %v", c.Image, err))
			im.Events.Warning(pod, c.Name, "Failed", "Error: "+lifecycle.ReasonErrImagePull)
		}
		return nil, startError(lifecycle.ReasonErrImagePull, msg)
	}
	have, err := im.Runtime.ImageStatus(ctx, &cri.ImageSpec{Image: ref})
	if err != nil || have == nil {
		return nil, startError(lifecycle.ReasonErrImagePull, fmt.Sprintf("image %q vanished after it was pulled (%v)", c.Image, err))
	}
	took := time.Since(began).Round(time.Millisecond)
	im.Events.Normal(pod, c.Name, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", c.Image, took, took, have.Size))
	im.touch(have.Id)
	return have, nil
}

func (im *Store) touch(id string) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.wanted[id] = time.Now()
}
