package columns

import (
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
)

func TestTableColumns(t *testing.T) {
	want := map[string]string{
		"pods":            "Name Ready Status Restarts Age IP Node Nominated Node Readiness Gates",
		"nodes":           "Name Status Roles Age Version Internal-IP External-IP OS-Image Kernel-Version Container-Runtime",
		"services":        "Name Type Cluster-IP External-IP Port(s) Age Selector",
		"deployments":     "Name Ready Up-to-date Available Age Containers Images Selector",
		"replicasets":     "Name Desired Current Ready Age Containers Images Selector",
		"configmaps":      "Name Data Age",
		"secrets":         "Name Type Data Age",
		"namespaces":      "Name Status Age",
		"leases":          "Name Holder Age",
		"endpointslices":  "Name AddressType Ports Endpoints Age",
		"serviceaccounts": "Name Age",
		"events":          "Last Seen Type Reason Object Subobject Source Message First Seen Count Name",
		"clusterroles":    "Name Created At",
		"ipaddresses":     "Name ParentRef",
	}
	for _, res := range api.Builtin {
		for _, obj := range []runtime.Object{res.New(), res.NewList()} {
			table, err := Table(obj)
			if err != nil {
				t.Errorf("%s: %v", res.Plural, err)
				continue
			}
			if _, list := obj.(api.Object); list != (len(table.Rows) == 1) {
				t.Errorf("%T: %d rows", obj, len(table.Rows))
			}
			columns := ""
			for i, c := range table.ColumnDefinitions {
				if i > 0 {
					columns += " "
				}
				columns += c.Name
			}
			if w, ok := want[res.Plural]; ok && w != columns {
				t.Errorf("%T: columns %q, want %q", obj, columns, w)
			}
		}
	}
}

func TestTableRows(t *testing.T) {
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "42", Continue: "more"}, Items: []corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
			Status: corev1.PodStatus{Phase: corev1.PodPending, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, ContainerStatuses: []corev1.ContainerStatus{{
				Name: "c", RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
				Name: "c", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}},
	}}
	before := list.DeepCopy()
	table, err := Table(list)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before, list) {
		t.Error("the objects were changed")
	}
	if table.ResourceVersion != "42" || table.Continue != "more" {
		t.Errorf("list meta %v", table.ListMeta)
	}
	want := []string{
		"[a 0/1 ImagePullBackOff 3 <unknown> 10.0.0.1 n1 <none> <none>]",
		"[b 1/1 Running 0 <unknown> <none> <none> <none> <none>]",
	}
	for i, row := range table.Rows {
		if got := fmt.Sprint(row.Cells); got != want[i] {
			t.Errorf("row %d: %s, want %s", i, got, want[i])
		}
		if row.Object.Object != runtime.Object(&list.Items[i]) {
			t.Errorf("row %d holds %T, not the versioned pod", i, row.Object.Object)
		}
	}
}

func TestTableOfFurtherVersion(t *testing.T) {
	table, err := Table(&eventsv1.EventList{Items: []eventsv1.Event{{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Note: "hello", Reason: "Because"}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 1 || len(table.ColumnDefinitions) != 10 || table.Rows[0].Cells[2] != "Because" {
		t.Errorf("got %v", table)
	}
}
