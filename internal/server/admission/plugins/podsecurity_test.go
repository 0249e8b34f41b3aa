package plugins

import (
	"context"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

type recorded []string

func (r *recorded) AddWarning(_, text string) { *r = append(*r, text) }

func TestPodSecurity(t *testing.T) {
	yes := true
	ns := func(name string, labels ...string) *corev1.Namespace {
		n := &corev1.Namespace{ObjectMeta: meta("", name)}
		n.Labels = map[string]string{}
		for i := 0; i < len(labels); i += 2 {
			n.Labels["pod-security.kubernetes.io/"+labels[i]] = labels[i+1]
		}
		return n
	}
	root := func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	}
	old := func(op admission.Operation, sub string, obj, before api.Object) *admission.Attributes {
		a := create(obj)
		a.Operation, a.Subresource, a.Old = op, sub, before
		return a
	}
	eviction := old(admission.Create, "eviction", pod(root), nil)
	eviction.Object = &policyv1.Eviction{ObjectMeta: meta("shop", "p")}
	debug := pod(root)
	debug.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "d", Image: "sh"}}}
	deployment := &appsv1.Deployment{ObjectMeta: meta("shop", "d")}
	deployment.Spec.Template.Spec = *pod(root).Spec.DeepCopy()
	tests := []struct {
		name  string
		ns    *corev1.Namespace
		a     *admission.Attributes
		says  string
		warns string
	}{
		{"no labels", ns("shop"), create(pod(root)), "", ""},
		{"baseline refuses", ns("shop", "enforce", "baseline"), create(pod(root)),
			`pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`, ""},
		{"baseline allows", ns("shop", "enforce", "baseline"), create(pod(nil)), "", ""},
		{"restricted refuses", ns("shop", "enforce", "restricted"), create(pod(nil)), "allowPrivilegeEscalation != false", ""},
		{"warn", ns("shop", "warn", "baseline"), create(pod(root)), "", `would violate PodSecurity "baseline:latest": privileged`},
		{"a label that makes no sense", ns("shop", "enforce", "strict"), create(pod(nil)), `violates PodSecurity "restricted:latest"`, ""},
		{"a deployment is warned of only", ns("shop", "enforce", "baseline", "warn", "baseline"), create(deployment), "", "would violate"},
		{"nothing that counts changes", ns("shop", "enforce", "baseline"), old(admission.Update, "", pod(root), pod(root)), "", ""},
		{"an eviction is no pod", ns("shop", "enforce", "baseline"), eviction, "", ""},
		{"status", ns("shop", "enforce", "baseline"), old(admission.Update, "status", debug, pod(root)), "", ""},
		{"a container is added", ns("shop", "enforce", "baseline"), old(admission.Update, "ephemeralcontainers", debug, pod(root)), "violates PodSecurity", ""},
		{"labels are checked", nil, create(ns("shop", "enforce", "strict")), `Namespace "shop" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict"`, ""},
		{"labels stay wrong", nil, old(admission.Update, "", ns("shop", "enforce", "strict"), ns("shop", "enforce", "strict")), "", ""},
		{"labels become strict", nil, old(admission.Update, "", ns("shop", "enforce", "baseline"), ns("shop")), "", `existing pods in namespace "shop" violate the new PodSecurity enforce level "baseline:latest"`},
		{"labels are relaxed", nil, old(admission.Update, "", ns("shop", "enforce", "baseline"), ns("shop", "enforce", "restricted")), "", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			o := objects{pod(root)}
			if tc.ns != nil {
				o = append(o, tc.ns)
			}
			var got recorded
			err := PodSecurity{o}.Validate(warning.WithWarningRecorder(context.Background(), &got), tc.a)
			wantError(t, err, tc.says)
			if (len(got) > 0) != (tc.warns != "") || tc.warns != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, tc.warns) }) {
				t.Errorf("warnings %q, want %q", got, tc.warns)
			}
		})
	}
}
