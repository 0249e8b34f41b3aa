package sources

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// ConfigMap implements podspec.Lookup.
func (s *Sources) ConfigMap(ctx context.Context, ns, name string) (*corev1.ConfigMap, error) {
	cm, err := client.Get[*corev1.ConfigMap](ctx, s.Client, api.Key{Namespace: ns, Name: name})
	return cm, missing(err, "configmap", name)
}

// Secret implements podspec.Lookup.
func (s *Sources) Secret(ctx context.Context, ns, name string) (*corev1.Secret, error) {
	secret, err := client.Get[*corev1.Secret](ctx, s.Client, api.Key{Namespace: ns, Name: name})
	return secret, missing(err, "secret", name)
}

// Claim implements persistent.Reader.
func (s *Sources) Claim(ctx context.Context, ns, name string) (*corev1.PersistentVolumeClaim, error) {
	return client.Get[*corev1.PersistentVolumeClaim](ctx, s.Client, api.Key{Namespace: ns, Name: name})
}

// PersistentVolume implements persistent.Reader.
func (s *Sources) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	return client.Get[*corev1.PersistentVolume](ctx, s.Client, api.Key{Name: name})
}

// missing says that there is no such object in the words that Kubernetes' node agent has for it, which people search for.
func missing(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource(kind), name)
	}
	return err
}

// Services implements podspec.Lookup. Hollow pods have nobody to read the variables.
func (s *Sources) Services(ctx context.Context, ns string) ([]*corev1.Service, error) {
	if s.Hollow {
		return nil, nil
	}
	return client.List[*corev1.Service](ctx, s.Client, client.ListOptions{Namespace: ns})
}
