package sources

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// spread is how far refreshes of certificates that were issued together are drawn apart.
const spread = 5 * time.Minute

// credentialKey is one podCertificate source of a pod.
type credentialKey struct {
	uid    types.UID
	volume string
	source int
}

// heldCredential is a credential and the lock under which its next step is taken.
type heldCredential struct {
	mu sync.Mutex
	credential
}

// Certificate implements volume.Source: the key and the certificate chain, in PEM, of a podCertificate source (KEP-4317), and when to look
// again. The first call makes the request; each takes the next step, as far as the signer has come. An agent that was restarted asks anew, as
// keys are kept in its memory and the pod's volume alone.
func (s *Sources) Certificate(ctx context.Context, pod *corev1.Pod, volume string, source int, p *corev1.PodCertificateProjection) (key, chain []byte, renew time.Time, err error) {
	k := credentialKey{pod.UID, volume, source}
	s.mu.Lock()
	held := s.credentials[k]
	if held == nil {
		held = &heldCredential{}
		s.credentials[k] = held
	}
	s.mu.Unlock()
	held.mu.Lock()
	defer held.mu.Unlock()
	c := &held.credential
	if err := s.advance(ctx, pod, c, p); err != nil {
		return nil, nil, time.Time{}, err
	}
	now := time.Now()
	if reason, message := c.late(now); reason != "" {
		s.Events.Warning(pod, "", reason, message)
	}
	switch {
	case c.refused != "":
		return nil, nil, time.Time{}, errors.New(c.refused)
	case c.chain == nil:
		return nil, nil, time.Time{}, errors.New("credential bundle is not issued yet")
	}
	return c.key, c.chain, c.renew(now), nil
}

// advance takes the next step with a credential. A certificate that cannot be refreshed now is kept.
func (s *Sources) advance(ctx context.Context, pod *corev1.Pod, c *credential, p *corev1.PodCertificateProjection) error {
	var answer *certificatesv1.PodCertificateRequest
	if c.pending != nil {
		var err error
		answer, err = client.Get[*certificatesv1.PodCertificateRequest](ctx, s.Client, api.Key{Namespace: pod.Namespace, Name: c.pending.name})
		if err != nil && !apierrors.IsNotFound(err) {
			return c.unless(fmt.Errorf("while getting PodCertificateRequest %s/%s: %w", pod.Namespace, c.pending.name, err))
		}
	}
	do, reason, message := c.next(answer, time.Now())
	switch do {
	case request:
		made, err := s.request(ctx, pod, p)
		if err != nil {
			return c.unless(fmt.Errorf("while creating PodCertificateRequest: %w", err))
		}
		c.pending = made
	case adopt:
		c.adopt(answer, rand.N(spread))
	case refuse:
		c.refused = message
		s.Events.Warning(pod, "", reason, message)
	}
	return nil
}

// unless returns err if there is no certificate yet.
func (c *credential) unless(err error) error {
	if c.chain != nil {
		return nil
	}
	return err
}

// adopt takes the certificate that was issued. delay is how much later than the signer says it will be refreshed.
func (c *credential) adopt(answer *certificatesv1.PodCertificateRequest, delay time.Duration) {
	var ders [][]byte
	for block, rest := pem.Decode([]byte(answer.Status.CertificateChain)); block != nil; block, rest = pem.Decode(rest) {
		ders = append(ders, block.Bytes)
	}
	fresh := credential{key: c.pending.key, chain: certificatesPEM(ders)}
	if t := answer.Status.BeginRefreshAt; t != nil {
		fresh.refresh = t.Add(delay)
	}
	if t := answer.Status.NotAfter; t != nil {
		fresh.notAfter = t.Time
	}
	*c = fresh
}

// request makes a key and asks for a certificate for it.
func (s *Sources) request(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection) (*pendingRequest, error) {
	node, err := client.Get[*corev1.Node](ctx, s.Client, api.Key{Name: s.Node})
	if err != nil {
		return nil, err
	}
	account, err := client.Get[*corev1.ServiceAccount](ctx, s.Client, api.Key{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName})
	if err != nil {
		return nil, fmt.Errorf("while fetching service account: %w", err)
	}
	key, stub, err := newKey(p.KeyType)
	if err != nil {
		return nil, err
	}
	out, err := s.Client.Create(ctx, &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}}},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: p.SignerName, MaxExpirationSeconds: p.MaxExpirationSeconds, UnverifiedUserAnnotations: p.UserAnnotations,
			PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID, StubPKCS10Request: stub,
		},
	})
	if err != nil {
		return nil, err
	}
	return &pendingRequest{name: out.GetName(), key: key, made: time.Now()}, nil
}
