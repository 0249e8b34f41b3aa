package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/node/persistent"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// Source reads what volumes are made from.
type Source interface {
	podspec.Lookup
	persistent.Reader
	// Token returns a service-account token for the pod and when it must be renewed.
	Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (token string, renew time.Time, err error)
	// TrustAnchors returns certificates of authorities in PEM.
	TrustAnchors(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error)
	// Certificate returns the key and the certificate chain, in PEM, of one source of a volume of the pod, and when to look again.
	Certificate(ctx context.Context, pod *corev1.Pod, volume string, source int, p *corev1.PodCertificateProjection) (key, chain []byte, renew time.Time, err error)
}

// builder collects the files of one volume.
type builder struct {
	ctx   context.Context
	pod   *corev1.Pod
	src   Source
	facts podspec.Facts
	files map[string]File
	renew time.Time // when a token or certificate in it must be renewed; zero: never
}

// isFiles reports whether a volume is one of files that are built from API objects.
func isFiles(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
}

// payload returns the files of a volume and when to look again.
func payload(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, src Source, facts podspec.Facts) (map[string]File, time.Time, error) {
	b := &builder{ctx: ctx, pod: pod, src: src, facts: facts, files: map[string]File{}}
	var err error
	switch {
	case v.ConfigMap != nil:
		err = b.configMap(v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, mode(v.ConfigMap.DefaultMode))
	case v.Secret != nil:
		err = b.secret(v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, mode(v.Secret.DefaultMode))
	case v.DownwardAPI != nil:
		err = b.downward(v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode))
	case v.Projected != nil:
		err = b.projected(v.Name, v.Projected)
	}
	return b.files, b.renew, err
}

func mode(m *int32) os.FileMode {
	if m == nil {
		return 0o644
	}
	return os.FileMode(*m) & os.ModePerm
}

func (b *builder) configMap(name string, items []corev1.KeyToPath, optional *bool, mode os.FileMode) error {
	cm, err := b.src.ConfigMap(b.ctx, b.pod.Namespace, name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional != nil && *optional {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return b.keys("configmap", data, items, optional, mode)
}

func (b *builder) secret(name string, items []corev1.KeyToPath, optional *bool, mode os.FileMode) error {
	s, err := b.src.Secret(b.ctx, b.pod.Namespace, name)
	if err != nil {
		if apierrors.IsNotFound(err) && optional != nil && *optional {
			return nil
		}
		return err
	}
	return b.keys("secret", s.Data, items, optional, mode)
}

func (b *builder) keys(kind string, data map[string][]byte, items []corev1.KeyToPath, optional *bool, m os.FileMode) error {
	if len(items) == 0 {
		for k, v := range data {
			b.files[k] = File{Data: v, Mode: m}
		}
		return nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("%s references non-existent %s key: %s", kind, kind, it.Key)
		}
		b.files[filepath.Clean(it.Path)] = File{Data: v, Mode: itemMode(it.Mode, m)}
	}
	return nil
}

func itemMode(m *int32, def os.FileMode) os.FileMode {
	if m == nil {
		return def
	}
	return mode(m)
}

func (b *builder) downward(items []corev1.DownwardAPIVolumeFile, m os.FileMode) error {
	for i := range items {
		it := &items[i]
		var text string
		var err error
		switch {
		case it.FieldRef != nil:
			text, err = podspec.Field(b.pod, it.FieldRef.FieldPath, b.facts)
		case it.ResourceFieldRef != nil:
			text, err = podspec.Resource(b.pod, it.ResourceFieldRef.ContainerName, it.ResourceFieldRef, b.facts)
		}
		if err != nil {
			return err
		}
		b.files[filepath.Clean(it.Path)] = File{Data: []byte(text), Mode: itemMode(it.Mode, m)}
	}
	return nil
}

func (b *builder) projected(volume string, p *corev1.ProjectedVolumeSource) error {
	m := mode(p.DefaultMode)
	for i := range p.Sources {
		s := &p.Sources[i]
		var err error
		switch {
		case s.ConfigMap != nil:
			err = b.configMap(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, m)
		case s.Secret != nil:
			err = b.secret(s.Secret.Name, s.Secret.Items, s.Secret.Optional, m)
		case s.DownwardAPI != nil:
			err = b.downward(s.DownwardAPI.Items, m)
		case s.ServiceAccountToken != nil:
			err = b.token(s.ServiceAccountToken, m)
		case s.ClusterTrustBundle != nil:
			err = b.trust(s.ClusterTrustBundle, m)
		case s.PodCertificate != nil:
			err = b.certificate(volume, i, s.PodCertificate, m)
		default:
			err = fmt.Errorf("projected source %d: only configMap, secret, downwardAPI, serviceAccountToken, clusterTrustBundle and podCertificate are supported", i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) token(p *corev1.ServiceAccountTokenProjection, m os.FileMode) error {
	token, renew, err := b.src.Token(b.ctx, b.pod, p)
	if err != nil {
		return err
	}
	b.renewAt(renew)
	b.private(p.Path, []byte(token), m)
	return nil
}

func (b *builder) trust(p *corev1.ClusterTrustBundleProjection, m os.FileMode) error {
	anchors, err := b.src.TrustAnchors(b.ctx, p)
	if err != nil {
		return err
	}
	b.private(p.Path, anchors, m)
	return nil
}

func (b *builder) certificate(volume string, source int, p *corev1.PodCertificateProjection, m os.FileMode) error {
	key, chain, renew, err := b.src.Certificate(b.ctx, b.pod, volume, source, p)
	if err != nil {
		return err
	}
	b.renewAt(renew)
	for path, data := range map[string][]byte{p.CredentialBundlePath: slices.Concat(key, chain), p.KeyPath: key, p.CertificateChainPath: chain} {
		if path != "" {
			b.private(path, data, m)
		}
	}
	return nil
}

// renewAt makes the volume be looked at again at a time, or before.
func (b *builder) renewAt(at time.Time) {
	if b.renew.IsZero() || at.Before(b.renew) {
		b.renew = at
	}
}

// private adds a file that a pod whose containers all run as one user keeps to that user (KEP-1205).
func (b *builder) private(path string, data []byte, m os.FileMode) {
	f := File{Data: data, Mode: m}
	if uid, ok := soleUser(b.pod); ok {
		f.Mode, f.UID = 0o600, int(uid)
	} else if sc := b.pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		f.Mode = 0o600
	}
	b.files[filepath.Clean(path)] = f
}

// soleUser returns the user that all containers run as, if the pod says so.
func soleUser(pod *corev1.Pod) (int64, bool) {
	var pods *int64
	if pod.Spec.SecurityContext != nil {
		pods = pod.Spec.SecurityContext.RunAsUser
	}
	var uid *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			u := pods
			if s := list[i].SecurityContext; s != nil && s.RunAsUser != nil {
				u = s.RunAsUser
			}
			if u == nil || (uid != nil && *uid != *u) {
				return 0, false
			}
			uid = u
		}
	}
	if uid == nil {
		return 0, false
	}
	return *uid, true
}
