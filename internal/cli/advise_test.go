package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/demand"
)

// TestRequestsThatFitAreAdvised: what pods of one Deployment used on two nodes is taken together; pods that are gone count for nothing.
func TestRequestsThatFitAreAdvised(t *testing.T) {
	c := clienttest.New(t)
	labels := map[string]string{"app": "web"}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "img"}}}}
	set := clienttest.Create(t, c, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u", Controller: ptr.To(true)}}},
		Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: template}})
	pod := func(name, node string, owned bool) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "img"}}}}
		if owned {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
			p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		}
		clienttest.Create(t, c, p)
	}
	pod("web-1-a", "n1", true)
	pod("web-1-b", "n2", true)
	pod("alone", "n1", false)
	pod("away", "n3", false)
	began := time.Unix(1e6, 0)
	used := func(pod string, cpu, memory int64, n int) demand.Use {
		u := demand.Use{Namespace: "default", Pod: pod, Container: "c", Since: began, Until: began.Add(time.Duration(n-1) * time.Minute)}
		for range n {
			u.CPU.Add(cpu)
			u.Memory.Add(memory)
		}
		return u
	}
	of := map[string][]demand.Use{
		"n1": {used("web-1-a", 100, 100<<10, 60), used("alone", 0, 100, 5), used("gone", 5000, 1<<30, 60)},
		"n2": {used("web-1-b", 200, 200<<10, 120)},
	}
	var out, problems bytes.Buffer
	if err := advise(t.Context(), &out, &problems, c, "", func(_ context.Context, path string) ([]byte, error) {
		node := strings.TrimSuffix(strings.TrimPrefix(path, "/api/v1/nodes/"), "/proxy/usage/demand")
		if node == "n3" {
			return nil, errors.New("no route to host")
		}
		return json.Marshal(of[node])
	}); err != nil {
		t.Fatal(err)
	}
	want := `NAMESPACE WORKLOAD CONTAINER CPU NOW ADVISED USED: HALF, 95%, MOST MEMORY NOW ADVISED USED: HALF, MOST FROM
default Deployment/web c 1000m 230m 200m, 200m, 200m 1Gi 230Mi 200Mi, 200Mi 180 min, pods: 2, over 2h0m0s
default Pod/alone c - 5m 0m, 0m, 0m - 8Mi 100Ki, 100Ki 5 min, pods: 1, over 5m0s (little)
`
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if got := problems.String(); got != "node n3 does not say what its pods used: no route to host\n" {
		t.Errorf("problems: %s", got)
	}
}
