package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
)

// Request asks for a volume for a pod.
type Request struct {
	Ref
	Pod *corev1.Pod
	// PV is the volume; one that stands in the pod's specification (Inline) has one made for it.
	PV       *corev1.PersistentVolume
	ReadOnly bool
	// Again says that the volume is published, and the driver wants to be told again (requiresRepublish).
	Again bool
}

// Published is a volume that is there for a pod.
type Published struct {
	Path string
	// Group says that the pod's fsGroup is for the agent to set.
	Group bool
	// Again says that the driver wants to be told again from time to time.
	Again bool
}

// Publish makes a volume ready for a pod. It may be called again.
func (m *Manager) Publish(ctx context.Context, r *Request) (Published, error) {
	if err := r.check(); err != nil {
		return Published{}, err
	}
	d, err := m.driver(r.Driver)
	if err != nil {
		return Published{}, err
	}
	o, err := m.options(ctx, r.Driver)
	if err != nil {
		return Published{}, err
	}
	if err := lives(r, o.VolumeLifecycleModes); err != nil {
		return Published{}, err
	}
	var said map[string]string
	if !r.Inline && (o.AttachRequired == nil || *o.AttachRequired) {
		if m.Announce != nil {
			if err := m.Announce(ctx); err != nil {
				return Published{}, fmt.Errorf("writing which volumes are in use: %w", err)
			}
		}
		if said, err = m.attached(ctx, r.Driver, r.Handle); err != nil {
			return Published{}, err
		}
	}
	defer m.lock(r.Driver, r.Handle)()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p := m.where(r.Ref)
	staged := d.can[canStage] && !r.Inline
	if staged {
		if err := m.stage(call, d, r, p, said); err != nil {
			return Published{}, err
		}
	}
	if err := m.publish(call, d, r, p, &o, said, staged); err != nil {
		return Published{}, err
	}
	return Published{Path: p.target, Group: !d.can[canGroup] && groups(r, o.FSGroupPolicy), Again: o.RequiresRepublish != nil && *o.RequiresRepublish}, nil
}

// lives returns why a driver has no volumes of a pod's, or of the cluster's.
func lives(r *Request, modes []storagev1.VolumeLifecycleMode) error {
	mode := storagev1.VolumeLifecyclePersistent
	if r.Inline {
		mode = storagev1.VolumeLifecycleEphemeral
	}
	if slices.Contains(modes, mode) || len(modes) == 0 && !r.Inline {
		return nil
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", mode, r.Driver, modes)
}

// stage has a volume staged unless it is.
func (m *Manager) stage(ctx context.Context, d *driver, r *Request, p place, said map[string]string) error {
	boot := Boot()
	if _, done := marked(p.stagedMark); done != "" && done == boot {
		return nil
	}
	secrets, err := m.secret(ctx, r.PV.Spec.CSI.NodeStageSecretRef)
	if err != nil {
		return fmt.Errorf("fetching NodeStageSecretRef: %w", err)
	}
	attachment := volume.AttachmentName(r.Handle, r.Driver, m.Node)
	if err := errors.Join(os.MkdirAll(p.staging, 0o750), mark(p.stagedMark, r.Ref, m.Node, attachment, "")); err != nil {
		return err
	}
	_, err = d.node.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{VolumeId: r.Handle, PublishContext: said, StagingTargetPath: m.Root.For(d.endpoint, p.staging),
		VolumeCapability: d.capability(r), Secrets: secrets, VolumeContext: r.PV.Spec.CSI.VolumeAttributes})
	if err != nil {
		if final(err) {
			err = errors.Join(err, removeEmpty(p.stagedTop, p.staging, p.stagedMark))
		}
		return err
	}
	return mark(p.stagedMark, r.Ref, m.Node, attachment, boot)
}

// publish has a volume published.
func (m *Manager) publish(ctx context.Context, d *driver, r *Request, p place, o *storagev1.CSIDriverSpec, said map[string]string, staged bool) error {
	secrets, err := m.secret(ctx, r.PV.Spec.CSI.NodePublishSecretRef)
	if err != nil {
		return fmt.Errorf("fetching NodePublishSecretRef: %w", err)
	}
	about := maps.Clone(r.PV.Spec.CSI.VolumeAttributes)
	if about == nil {
		about = map[string]string{}
	}
	if o.PodInfoOnMount != nil && *o.PodInfoOnMount {
		maps.Copy(about, podInfo(r))
	}
	tokens, err := m.tokens(ctx, r.Pod, o.TokenRequests)
	if err != nil {
		return err
	}
	if tokens != "" {
		const key = "csi.storage.k8s.io/serviceAccount.tokens"
		if o.ServiceAccountTokenInSecrets != nil && *o.ServiceAccountTokenInSecrets {
			secrets[key] = tokens
		} else {
			about[key] = tokens
		}
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(p.target), 0o750), mark(p.publishedMark, r.Ref, m.Node, volume.AttachmentName(r.Handle, r.Driver, m.Node), "")); err != nil {
		return err
	}
	ask := &spec.NodePublishVolumeRequest{VolumeId: r.Handle, PublishContext: said, TargetPath: m.Root.For(d.endpoint, p.target), VolumeCapability: d.capability(r),
		Readonly: r.ReadOnly, Secrets: secrets, VolumeContext: about}
	if staged {
		ask.StagingTargetPath = m.Root.For(d.endpoint, p.staging)
	}
	if _, err = d.node.NodePublishVolume(ctx, ask); err != nil && final(err) && !r.Again {
		err = errors.Join(err, removeEmpty(p.publishedTop, p.target, p.publishedMark))
	}
	return err
}

// podInfo is what drivers are told of the pod that ask for it (KEP-603).
func podInfo(r *Request) map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/pod.name": r.Pod.Name, "csi.storage.k8s.io/pod.namespace": r.Pod.Namespace, "csi.storage.k8s.io/pod.uid": string(r.Pod.UID),
		"csi.storage.k8s.io/serviceAccount.name": r.Pod.Spec.ServiceAccountName, "csi.storage.k8s.io/ephemeral": strconv.FormatBool(r.Inline),
	}
}

// tokens returns the tokens of the pod's service account that a driver asks for, by audience, as JSON (KEP-1855); "" for none.
func (m *Manager) tokens(ctx context.Context, pod *corev1.Pod, requests []storagev1.TokenRequest) (string, error) {
	if len(requests) == 0 {
		return "", nil
	}
	if m.Token == nil {
		return "", errors.New("this agent has no way to ask for service-account tokens")
	}
	all := map[string]authenticationv1.TokenRequestStatus{}
	for _, want := range requests {
		ask := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: want.ExpirationSeconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}}
		if want.Audience != "" {
			ask.Spec.Audiences = []string{want.Audience}
		}
		got, err := m.Token(ctx, pod.Namespace, pod.Spec.ServiceAccountName, ask)
		if err != nil {
			return "", fmt.Errorf("failed to fetch token: %w", err)
		}
		all[want.Audience] = got.Status
	}
	text, err := json.Marshal(all)
	return string(text), err
}

// secret returns what stands in a Secret, of which ref may be nil.
func (m *Manager) secret(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	out := map[string]string{}
	if ref == nil {
		return out, nil
	}
	s, err := client.Get[*corev1.Secret](ctx, m.Client, api.Key{Namespace: ref.Namespace, Name: ref.Name})
	if err != nil {
		return nil, fmt.Errorf("failed to find the secret %s in the namespace %s with error: %w", ref.Name, ref.Namespace, err)
	}
	for key, value := range s.Data {
		out[key] = string(value)
	}
	return out, nil
}

// final reports whether a driver has surely not done what it was asked: it does nothing more on its own.
func final(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	_, ok := status.FromError(err)
	return ok
}
