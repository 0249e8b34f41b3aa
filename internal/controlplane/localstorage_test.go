package controlplane

import (
	"testing"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// The class that a cluster begins with is the user's to change and to delete.
func TestTheLocalClassStaysAsUsersLeftIt(t *testing.T) {
	c := clienttest.New(t)
	start := func() {
		t.Helper()
		if err := localStorage(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	key := api.Key{Name: volume.LocalClass}
	start()
	class, err := client.Get[*storagev1.StorageClass](t.Context(), c, key)
	if err != nil || volume.DefaultClass([]*storagev1.StorageClass{class}) != class || !volume.Delays(class) || class.AllowVolumeExpansion != nil {
		t.Fatalf("%v %+v", err, class)
	}
	if _, err := client.Mutate(t.Context(), c, key, "", func(o *storagev1.StorageClass) bool { o.Annotations = nil; return true }); err != nil {
		t.Fatal(err)
	}
	start()
	if class, err = client.Get[*storagev1.StorageClass](t.Context(), c, key); err != nil || len(class.Annotations) > 0 {
		t.Errorf("after a change: %v %+v", err, class)
	}
	if err := client.Delete[*storagev1.StorageClass](t.Context(), c, key, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	start()
	if _, err := client.Get[*storagev1.StorageClass](t.Context(), c, key); !apierrors.IsNotFound(err) {
		t.Errorf("after it was deleted: %v", err)
	}
	driver, err := client.Get[*storagev1.CSIDriver](t.Context(), c, api.Key{Name: volume.Local})
	if err != nil || *driver.Spec.AttachRequired || *driver.Spec.FSGroupPolicy != storagev1.FileFSGroupPolicy {
		t.Errorf("the driver: %v %+v", err, driver)
	}
}

// A cluster that has a default class keeps it.
func TestTheLocalClassIsNoSecondDefault(t *testing.T) {
	c := clienttest.New(t)
	clienttest.Create(t, c, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "gold", Annotations: map[string]string{volume.DefaultClassAnnotations()[0]: "true"}}, Provisioner: "x.example.com"})
	if err := localStorage(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	classes, err := client.List[*storagev1.StorageClass](t.Context(), c, client.ListOptions{})
	if err != nil || len(classes) != 2 || volume.DefaultClass(classes).Name != "gold" || len(classes[1].Annotations) > 0 {
		t.Errorf("%v %+v", err, classes)
	}
}
