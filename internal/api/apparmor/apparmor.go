// Package apparmor knows how older clients say which AppArmor profile a container has.
//
// What flows through it: pods as they are created. What must stay true: a profile that a container names in its own field is left as it is
// (TestAppArmorAnnotations).
package apparmor

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// ReadAnnotations gives containers the profile that the annotation of older clients names, where they have none of their own
// (KEP-24, version skew). One that makes no sense is left for validation.
func ReadAnnotations(pod *core.Pod) {
	if len(pod.Annotations) == 0 || pod.Spec.OS != nil && pod.Spec.OS.Name == core.Windows {
		return
	}
	var whole *core.AppArmorProfile
	if pod.Spec.SecurityContext != nil {
		whole = pod.Spec.SecurityContext.AppArmorProfile
	}
	podutil.VisitContainers(&pod.Spec, podutil.AllFeatureEnabledContainers(), func(c *core.Container, _ podutil.ContainerType) bool {
		annotation, ok := pod.Annotations[core.DeprecatedAppArmorAnnotationKeyPrefix+c.Name]
		if !ok || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			return true
		}
		profile := podutil.ApparmorFieldForAnnotation(annotation)
		if profile == nil || len(corevalidation.ValidateAppArmorProfileField(profile, field.NewPath(""))) > 0 || apiequality.Semantic.DeepEqual(profile, whole) {
			return true
		}
		own := core.SecurityContext{}
		if c.SecurityContext != nil {
			own = *c.SecurityContext
		}
		own.AppArmorProfile = profile
		c.SecurityContext = &own
		return true
	})
}
