package workload

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func TestHistoryCreatesAdoptsAndReleases(t *testing.T) {
	c := clienttest.New(t)
	rs := owner(metav1.NamespaceDefault, "web", "app=web")
	h := &History{Client: c, Kind: kind, Owners: newOwners()}
	sel := labels.SelectorFromSet(labels.Set{"app": "web"})
	ref := *metav1.NewControllerRef(rs, kind)
	build := func(name string, data string) func(int32) *appsv1.ControllerRevision {
		tmpl := template("v1")
		return func(collisions int32) *appsv1.ControllerRevision {
			r := NewRevision(rs, ref, &tmpl, []byte(data))
			r.Name, r.Revision = name+string(rune('0'+collisions)), 1
			return r
		}
	}
	first, n, err := h.Create(t.Context(), rs, 0, build("web-", `{"a":1}`))
	if err != nil || n != 0 || first.Name != "web-0" {
		t.Fatalf("%v, %d collisions, %v", first, n, err)
	}
	if again, n, err := h.Create(t.Context(), rs, 0, build("web-", `{"a":1}`)); err != nil || n != 0 || again.UID != first.UID {
		t.Errorf("the same once more: %v, %d collisions, %v", again, n, err)
	}
	if other, n, err := h.Create(t.Context(), rs, 0, build("web-", `{"a":2}`)); err != nil || n != 1 || other.Name != "web-1" {
		t.Errorf("another of the same name: %v, %d collisions, %v", other, n, err)
	}
	if got, err := h.Renumber(t.Context(), first, 7, nil); err != nil || got.Revision != 7 {
		t.Errorf("renumbered: %v, %v", got, err)
	}

	orphan := build("orphan-", `{"a":3}`)(0)
	orphan.OwnerReferences = nil
	clienttest.Create(t, c, orphan)
	stray := build("stray-", `{"a":4}`)(0)
	stray.Labels = map[string]string{"app": "db"}
	clienttest.Create(t, c, stray)
	all, err := h.Of(t.Context(), rs, sel)
	if err != nil || len(all) != 3 || all[2].Name != "web-0" {
		t.Errorf("%d revisions, %v; want the two made, and the orphan, by number", len(all), err)
	}
	for _, r := range all {
		if !metav1.IsControlledBy(r, rs) {
			t.Errorf("%s is not controlled", r.Name)
		}
	}
	if err := h.Remove(t.Context(), append(all[:2:2], all[0])); err != nil {
		t.Errorf("removing one of them twice: %v", err)
	}
	left, err := client.List[*appsv1.ControllerRevision](t.Context(), c, client.ListOptions{Namespace: metav1.NamespaceDefault})
	if err != nil || len(left) != 2 || left[0].Name != "stray-0" || len(left[0].OwnerReferences) != 0 {
		t.Errorf("left: %v, %v; want the one that is left and the one that was released", left, err)
	}
}
