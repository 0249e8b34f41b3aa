package cli

import (
	"bytes"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func workload(annotations map[string]string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: annotations}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web:v2"}}}}}}
}

var web = api.Key{Namespace: "default", Name: "web"}

func TestRolloutShowsWhereItIs(t *testing.T) {
	c := clienttest.New(t)
	d := clienttest.Create(t, c, workload(map[string]string{spec.How: "{strategy: canary, steps: [{weight: 20}, {pause: 1m}, {job: smoke}], checks: [{source: cpu, max: 1}]}"}))
	for revision, state := range map[string]string{"1": "", "2": `{"phase":"UnderWay","step":1,"since":null}`} {
		rs := &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-" + revision, Labels: d.Spec.Template.Labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
				Annotations:     map[string]string{revisionAnnotation: revision, spec.State: state}},
			Spec: appsv1.ReplicaSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template},
		}
		clienttest.Create(t, c, rs)
	}
	var out bytes.Buffer
	if err := showRollout(t.Context(), &out, c, web); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Deployment default/web:", "canary\n ✓ 1. weight: 20\n › 2. pause: 1m\n   3. job: smoke\n   check: cpu\n", "2          web-2        1      0           UnderWay   web:v2\n1          web-1"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestRolloutIsAskedByAnnotation(t *testing.T) {
	c := clienttest.New(t)
	var out bytes.Buffer
	if err := askRollout(t.Context(), &out, c, web, spec.Promote); err == nil || !strings.Contains(err.Error(), "there is no Deployment default/web") {
		t.Errorf("without a Deployment: %v", err)
	}
	clienttest.Create(t, c, workload(nil))
	if err := askRollout(t.Context(), &out, c, web, spec.Promote); err == nil || !strings.Contains(err.Error(), "rolls out without steps") {
		t.Errorf("without steps: %v", err)
	}
	if _, err := client.Mutate(t.Context(), c, web, "", func(d *appsv1.Deployment) bool {
		d.Annotations = map[string]string{spec.How: "{strategy: blueGreen}"}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if err := askRollout(t.Context(), &out, c, web, spec.Abort); err != nil {
		t.Fatal(err)
	}
	d, err := client.Get[*appsv1.Deployment](t.Context(), c, web)
	if err != nil || d.Annotations[spec.Action] != spec.Abort || !strings.Contains(out.String(), "asked Deployment default/web to abort") {
		t.Errorf("annotations %v, %v; said %s", d.Annotations, err, out.String())
	}
}
