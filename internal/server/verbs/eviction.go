package verbs

import (
	"net/http"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/call"
)

// evict deletes a pod if its disruption budget lets it go (kubectl drain).
func (v *Verbs) evict(c *call.Call) error {
	eviction, opts, err := decodeSub(c, policyv1.SchemeGroupVersion.WithKind("Eviction"), &policyv1.Eviction{})
	if err != nil {
		return err
	}
	if err := v.cfg.Registry.Evict(c.R.Context(), eviction, opts); err != nil {
		return err
	}
	c.Document(http.StatusCreated, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}, call.StatusKind)
	return nil
}
