package crd

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	names "k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-io/knarr/internal/api"
)

// finalizerWarnings names finalizers that an object did not have before and whose name may be somebody else's, too.
func finalizerWarnings(obj, old api.Object) []string {
	added := sets.New(obj.GetFinalizers()...)
	if old != nil {
		added.Delete(old.GetFinalizers()...)
	}
	usual := []string{metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents, string(corev1.FinalizerKubernetes)}
	var out []string
	for _, name := range sets.List(added) {
		for _, fault := range names.IsQualifiedName(name) {
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", name, fault))
		}
		if strings.Contains(name, "/") || slices.Contains(usual, name) {
			continue
		}
		path := ""
		if strings.Contains(name, ".") {
			path = " including a path (/)"
		}
		out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name%s to avoid accidental conflicts with other finalizer writers", name, path))
	}
	return out
}
