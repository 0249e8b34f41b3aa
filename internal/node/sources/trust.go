package sources

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// TrustAnchors implements volume.Source: the certificates of one ClusterTrustBundle, or of those of a signer that a selector chooses
// (KEP-3257), each once.
func (s *Sources) TrustAnchors(ctx context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	optional := p.Optional != nil && *p.Optional
	switch {
	case p.Name != nil:
		b, err := client.Get[*certificatesv1.ClusterTrustBundle](ctx, s.Client, api.Key{Name: *p.Name})
		if apierrors.IsNotFound(err) && optional {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("while getting ClusterTrustBundle: %w", missing(err, "clustertrustbundle", *p.Name))
		}
		return anchors([]*certificatesv1.ClusterTrustBundle{b}), nil
	case p.SignerName != nil:
		chosen, err := s.bundles(ctx, *p.SignerName, p.LabelSelector)
		if err == nil && len(chosen) == 0 && !optional {
			err = errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
		}
		return anchors(chosen), err
	}
	return nil, errors.New("ClusterTrustBundle projection requires either name or signerName to be set")
}

// bundles returns the bundles of a signer that a selector chooses. None chooses nothing, an empty one chooses all.
func (s *Sources) bundles(ctx context.Context, signer string, by *metav1.LabelSelector) ([]*certificatesv1.ClusterTrustBundle, error) {
	selector, err := metav1.LabelSelectorAsSelector(by)
	if err != nil {
		return nil, fmt.Errorf("while parsing label selector: %w", err)
	}
	all, err := client.List[*certificatesv1.ClusterTrustBundle](ctx, s.Client, client.ListOptions{Labels: selector})
	if err != nil {
		return nil, fmt.Errorf("while listing ClusterTrustBundles matching label selector %v: %w", by, err)
	}
	return slices.DeleteFunc(all, func(b *certificatesv1.ClusterTrustBundle) bool { return b.Spec.SignerName != signer }), nil
}

// anchors returns the certificates of bundles in PEM, each once and in an order that says nothing about where it is from.
func anchors(bundles []*certificatesv1.ClusterTrustBundle) []byte {
	var all [][]byte
	for _, b := range bundles {
		for block, rest := pem.Decode([]byte(b.Spec.TrustBundle)); block != nil; block, rest = pem.Decode(rest) {
			all = append(all, block.Bytes)
		}
	}
	slices.SortFunc(all, bytes.Compare)
	return certificatesPEM(slices.CompactFunc(all, bytes.Equal))
}

// certificatesPEM encodes certificates without headers and without what may stand between them.
func certificatesPEM(ders [][]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
