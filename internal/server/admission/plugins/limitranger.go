package plugins

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	helper "k8s.io/component-helpers/resource"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// LimitRanger fills in a namespace's default requests and limits, and refuses pods and claims outside its limits.
type LimitRanger struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (LimitRanger) Name() string { return "LimitRanger" }

// Admit implements admission.Plugin.
func (p LimitRanger) Admit(_ context.Context, a *admission.Attributes) error {
	if pod := newPod(a); pod != nil {
		p.each(a.Key.Namespace, func(r *corev1.LimitRange) { setDefaults(r, pod) })
	}
	return nil
}

// Validate implements admission.Plugin.
func (p LimitRanger) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create && a.Operation != admission.Update || a.Old != nil && a.Old.GetDeletionTimestamp() != nil {
		return nil
	}
	var check func(item *corev1.LimitRangeItem) []error
	switch {
	case a.Resource == api.Pods && (a.Operation == admission.Create && a.Subresource == "" || a.Subresource == "resize"):
		pod := a.Object.(*corev1.Pod)
		check = func(item *corev1.LimitRangeItem) []error { return checkPod(item, pod) }
	case a.Resource == api.PersistentVolumeClaims && a.Subresource == "":
		requests := a.Object.(*corev1.PersistentVolumeClaim).Spec.Resources.Requests
		check = func(item *corev1.LimitRangeItem) []error { return checkClaim(item, requests) }
	default:
		return nil
	}
	var err error
	p.each(a.Key.Namespace, func(r *corev1.LimitRange) {
		var errs []error
		for i := range r.Spec.Limits {
			errs = append(errs, check(&r.Spec.Limits[i])...)
		}
		if err == nil && len(errs) > 0 {
			err = forbidden(a, "%w", utilerrors.NewAggregate(errs))
		}
	})
	return err
}

func (p LimitRanger) each(namespace string, visit func(*corev1.LimitRange)) {
	p.Reader.List(api.LimitRanges, namespace, func(o api.Object) bool {
		visit(o.(*corev1.LimitRange))
		return true
	})
}

// setDefaults gives each container what it lacks of r's defaults, and says so in an annotation.
func setDefaults(r *corev1.LimitRange, pod *corev1.Pod) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range r.Spec.Limits {
		if r.Spec.Limits[i].Type == corev1.LimitTypeContainer {
			maps.Copy(requests, r.Spec.Limits[i].DefaultRequest)
			maps.Copy(limits, r.Spec.Limits[i].Default)
		}
	}
	var notes []string
	set := func(kind string, containers []corev1.Container) {
		for i := range containers {
			c := &containers[i]
			if names := fill(&c.Resources.Requests, requests); names != "" {
				notes = append(notes, fmt.Sprintf("%s request for %s %s", names, kind, c.Name))
			}
			if names := fill(&c.Resources.Limits, limits); names != "" {
				notes = append(notes, fmt.Sprintf("%s limit for %s %s", names, kind, c.Name))
			}
		}
	}
	set("container", pod.Spec.Containers)
	set("init container", pod.Spec.InitContainers)
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations["kubernetes.io/limit-ranger"] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
}

// fill adds what list lacks of defaults and returns the names, in order.
func fill(list *corev1.ResourceList, defaults corev1.ResourceList) string {
	var names []string
	for name, q := range defaults {
		if _, ok := (*list)[name]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q.DeepCopy()
		names = append(names, string(name))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func checkPod(item *corev1.LimitRangeItem, pod *corev1.Pod) (errs []error) {
	check := func(requests, limits corev1.ResourceList) {
		for _, name := range sorted(item.Min) {
			errs = appendError(errs, atLeast(item.Type, name, item.Min[name], requests, limits))
		}
		for _, name := range sorted(item.Max) {
			errs = appendError(errs, atMost(item.Type, name, item.Max[name], requests, limits))
		}
		for _, name := range sorted(item.MaxLimitRequestRatio) {
			errs = appendError(errs, ratio(item.Type, name, item.MaxLimitRequestRatio[name], requests, limits))
		}
	}
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range containers {
				check(containers[i].Resources.Requests, containers[i].Resources.Limits)
			}
		}
	case corev1.LimitTypePod:
		opts := helper.PodResourcesOptions{ExcludeOverhead: true}
		check(helper.PodRequests(pod, opts), helper.PodLimits(pod, opts))
	}
	return errs
}

func checkClaim(item *corev1.LimitRangeItem, requests corev1.ResourceList) (errs []error) {
	if item.Type != corev1.LimitTypePersistentVolumeClaim {
		return nil
	}
	for _, name := range sorted(item.Min) {
		errs = appendError(errs, atLeast(item.Type, name, item.Min[name], requests, nil))
	}
	for _, name := range sorted(item.Max) {
		max := item.Max[name]
		if req, ok := requests[name]; !ok {
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", name, item.Type, max.String()))
		} else if req.Cmp(max) > 0 {
			errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, item.Type, max.String(), req.String()))
		}
	}
	return errs
}

func sorted(list corev1.ResourceList) []corev1.ResourceName { return slices.Sorted(maps.Keys(list)) }

func appendError(errs []error, err error) []error {
	if err == nil {
		return errs
	}
	return append(errs, err)
}

func atLeast(kind corev1.LimitType, name corev1.ResourceName, min resource.Quantity, requests, limits corev1.ResourceList) error {
	req, hasReq := requests[name]
	lim, hasLim := limits[name]
	switch {
	case !hasReq:
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", name, kind, min.String())
	case req.Cmp(min) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", name, kind, min.String(), req.String())
	case hasLim && lim.Cmp(min) < 0:
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", name, kind, min.String(), lim.String())
	}
	return nil
}

func atMost(kind corev1.LimitType, name corev1.ResourceName, max resource.Quantity, requests, limits corev1.ResourceList) error {
	req, hasReq := requests[name]
	lim, hasLim := limits[name]
	switch {
	case !hasLim:
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", name, kind, max.String())
	case lim.Cmp(max) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", name, kind, max.String(), lim.String())
	case hasReq && req.Cmp(max) > 0:
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", name, kind, max.String(), req.String())
	}
	return nil
}

func ratio(kind corev1.LimitType, name corev1.ResourceName, max resource.Quantity, requests, limits corev1.ResourceList) error {
	req, lim := requests[name], limits[name]
	if req.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", name, kind, max.String())
	}
	if lim.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", name, kind, max.String())
	}
	if got := lim.AsApproximateFloat64() / req.AsApproximateFloat64(); got > max.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", name, kind, max.String(), got)
	}
	return nil
}
