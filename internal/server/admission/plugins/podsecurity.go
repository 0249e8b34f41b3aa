package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/warning"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// PodSecurity holds pods to the Pod Security Standard that their namespace's labels pod-security.kubernetes.io/enforce and warn
// ask for (KEP-2579). The checks are Kubernetes' own library; audit is left to whoever audits.
type PodSecurity struct{ Reader admission.Reader }

// evaluator is the library's checks, made when the first namespace asks for them.
var evaluator = sync.OnceValues(func() (policy.Evaluator, error) { return policy.NewEvaluator(policy.DefaultChecks(), nil) })

// Name implements admission.Plugin.
func (PodSecurity) Name() string { return "PodSecurity" }

// Admit implements admission.Plugin.
func (PodSecurity) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p PodSecurity) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Operation != admission.Create && a.Operation != admission.Update {
		return nil
	}
	switch a.Resource {
	case api.Namespaces:
		if a.Subresource == "" {
			return p.namespace(ctx, a)
		}
	case api.Pods:
		if a.Subresource != "" && a.Subresource != "ephemeralcontainers" && a.Subresource != "resize" {
			return nil // a Binding, an Eviction, a status: not what decides about a pod's security
		}
		pod := a.Object.(*corev1.Pod)
		if a.Operation == admission.Update && !imagesChange(pod, a.Old.(*corev1.Pod)) {
			return nil
		}
		return p.check(ctx, a, &pod.ObjectMeta, &pod.Spec, true)
	default:
		if t := templateOf(a.Object); t != nil && a.Subresource == "" {
			return p.check(ctx, a, &t.ObjectMeta, &t.Spec, false)
		}
	}
	return nil
}

// levels reads a namespace's labels; without them everything is allowed.
func levels(labels map[string]string) (podsecurity.Policy, field.ErrorList) {
	all := podsecurity.LevelVersion{Level: podsecurity.LevelPrivileged, Version: podsecurity.LatestVersion()}
	return podsecurity.PolicyToEvaluate(labels, podsecurity.Policy{Enforce: all, Audit: all, Warn: all})
}

// check holds a pod, or what pods will be made from, to its namespace's levels. Only pods themselves are refused.
func (p PodSecurity) check(ctx context.Context, a *admission.Attributes, meta *metav1.ObjectMeta, spec *corev1.PodSpec, enforce bool) error {
	obj, ok := p.Reader.Get(api.Namespaces, api.Key{Name: a.Key.Namespace})
	if !ok || !slices.ContainsFunc(podSecurityLabels[:], func(l string) bool { _, set := obj.GetLabels()[l]; return set }) {
		return nil
	}
	want, _ := levels(obj.GetLabels()) // labels that make no sense count as the strictest
	checks, err := evaluator()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("pod security checks: %w", err))
	}
	if enforce {
		if r := policy.AggregateCheckResults(checks.EvaluatePod(want.Enforce, meta, spec)); !r.Allowed {
			return forbidden(a, "violates PodSecurity %q: %s", want.Enforce.String(), r.ForbiddenDetail())
		}
	}
	if r := policy.AggregateCheckResults(checks.EvaluatePod(want.Warn, meta, spec)); !r.Allowed {
		warning.AddWarning(ctx, "", fmt.Sprintf("would violate PodSecurity %q: %s", want.Warn.String(), r.ForbiddenDetail()))
	}
	return nil
}

// podSecurityLabels are the labels without which there is nothing to check.
var podSecurityLabels = [...]string{podsecurity.EnforceLevelLabel, podsecurity.WarnLevelLabel}

// namespace refuses labels that make no sense, and warns of pods that a stricter level would not let in.
func (p PodSecurity) namespace(ctx context.Context, a *admission.Attributes) error {
	want, errs := levels(a.Object.GetLabels())
	if a.Operation == admission.Create {
		return invalidLabels(a, errs)
	}
	had, oldErrs := levels(a.Old.GetLabels())
	if len(errs) > 0 && !equality.Semantic.DeepEqual(errs, oldErrs) {
		return invalidLabels(a, errs)
	}
	if want.Enforce == had.Enforce || want.Enforce.Level == podsecurity.LevelPrivileged ||
		want.Enforce.Version == had.Enforce.Version && podsecurity.CompareLevels(want.Enforce.Level, had.Enforce.Level) < 1 {
		return nil
	}
	checks, err := evaluator()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("pod security checks: %w", err))
	}
	violations := map[string][]string{}
	p.Reader.List(api.Pods, a.Key.Name, func(o api.Object) bool {
		pod := o.(*corev1.Pod)
		if r := policy.AggregateCheckResults(checks.EvaluatePod(want.Enforce, &pod.ObjectMeta, &pod.Spec)); !r.Allowed {
			violations[r.ForbiddenReason()] = append(violations[r.ForbiddenReason()], pod.Name)
		}
		return true
	})
	if len(violations) == 0 {
		return nil
	}
	warning.AddWarning(ctx, "", fmt.Sprintf("existing pods in namespace %q violate the new PodSecurity enforce level %q", a.Key.Name, want.Enforce.String()))
	var lines []string
	for why, names := range violations { // names are in order: List visits them so
		switch n := len(names) - 1; n {
		case 0:
			lines = append(lines, fmt.Sprintf("%s: %s", names[0], why))
		case 1:
			lines = append(lines, fmt.Sprintf("%s (and 1 other pod): %s", names[0], why))
		default:
			lines = append(lines, fmt.Sprintf("%s (and %d other pods): %s", names[0], n, why))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		warning.AddWarning(ctx, "", l)
	}
	return nil
}

func invalidLabels(a *admission.Attributes, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(a.Resource.GroupVersionKind.GroupKind(), a.Key.Name, errs)
}

// imagesChange tells whether an update changes anything that the standards look at: containers are fixed but for their images,
// and ephemeral ones can be added.
func imagesChange(pod, old *corev1.Pod) bool {
	images := func(p *corev1.Pod) string {
		var b strings.Builder
		visitContainers(&p.Spec, func(kind string, c *corev1.Container) { fmt.Fprintf(&b, "%s %s %s\n", kind, c.Name, c.Image) })
		return b.String()
	}
	return images(pod) != images(old)
}

// templateOf returns what an object makes pods from, or nil.
func templateOf(obj api.Object) *corev1.PodTemplateSpec {
	switch o := obj.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.ReplicaSet:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.Job:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	case *corev1.ReplicationController:
		return o.Spec.Template
	case *corev1.PodTemplate:
		return &o.Template
	}
	return nil
}
