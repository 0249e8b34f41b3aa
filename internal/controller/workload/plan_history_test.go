package workload

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	corev1 "k8s.io/api/core/v1"
)

func template(image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

func TestTemplateHash(t *testing.T) {
	a, b := template("v1"), template("v1")
	one := int32(1)
	if TemplateHash(&a, nil) != TemplateHash(&b, nil) {
		t.Error("equal templates have different hashes")
	}
	if TemplateHash(&a, nil) == TemplateHash(&a, &one) {
		t.Error("a collision does not change the hash")
	}
	b.Spec.Containers[0].Image = "v2"
	if TemplateHash(&a, nil) == TemplateHash(&b, nil) {
		t.Error("different templates have the same hash")
	}
	// The value that kubectl shows for this template in a Kubernetes cluster.
	if got, want := TemplateHash(&a, nil), "59dc47d8b8"; got != want {
		t.Errorf("hash %s, want Kubernetes' %s", got, want)
	}
}

func TestRevisionsKeepTemplates(t *testing.T) {
	a := template("v1 <&>")
	data, err := TemplateData(&a)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"image":"v1 \u003c\u0026\u003e","name":"c","resources":{}}]}}}}`
	if string(data) != want {
		t.Errorf("data %s, want Kubernetes' form %s", data, want)
	}
	rev := NewRevision(&metav1.ObjectMeta{Namespace: "n", Name: "db", Annotations: map[string]string{"kubernetes.io/change-cause": "x"}}, metav1.OwnerReference{UID: "u"}, &a, data)
	back, err := TemplateOf(rev)
	if err != nil || back.Spec.Containers[0].Image != "v1 <&>" || rev.Labels["app"] != "web" || rev.Annotations["kubernetes.io/change-cause"] != "x" {
		t.Errorf("read back %+v of %+v: %v", back, rev, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"spec":{"template":null}}`} {
		if _, err := TemplateOf(&appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Data: runtime.RawExtension{Raw: []byte(bad)}}); err == nil {
			t.Errorf("%q is read as a template", bad)
		}
	}
	if DataHash(data, 0) == DataHash(data, 1) {
		t.Error("a collision does not change the hash")
	}
	if name := RevisionName(strings.Repeat("x", 300), "abc"); len(name) != 227 || !strings.HasSuffix(name, "x-abc") {
		t.Errorf("name %s", name)
	}
}

func TestPlaceInHistory(t *testing.T) {
	for _, tc := range []struct{ name, revisions, current, others, number string }{
		{"the first", "", "none", "", "1"},
		{"the present one", "1=a 2=v", "2", "1", "2"},
		{"a new one", "1=a 2=b", "none", "1 2", "3"},
		{"one that is gone back to", "1=v 2=b", "1", "2", "3"},
		{"twice the same", "1=v 2=b 3=v", "3", "2", "3"},
		{"whatever the order", "3=b 1=v", "1", "3", "4"},
	} {
		var all []*appsv1.ControllerRevision
		for _, word := range strings.Fields(tc.revisions) {
			r := &appsv1.ControllerRevision{}
			number, data, _ := strings.Cut(word, "=")
			fmt.Sscan(number, &r.Revision)
			r.Data.Raw = []byte(data)
			all = append(all, r)
		}
		p := PlaceIn(all, []byte("v"), nil)
		current, others := "none", []string{}
		if c := p.Current(); c != nil {
			current = fmt.Sprint(c.Revision)
		}
		for _, r := range p.Others {
			others = append(others, fmt.Sprint(r.Revision))
		}
		if current != tc.current || strings.Join(others, " ") != tc.others || fmt.Sprint(p.Number) != tc.number {
			t.Errorf("%s: current %s, others %v, number %d; want %s, %s, %s", tc.name, current, others, p.Number, tc.current, tc.others, tc.number)
		}
	}
}
