package controlplane

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
)

// localStorage makes the class and the CSIDriver of Knarr's own volumes. The class is made where the driver's object is not there yet, which
// comes after it: in a new cluster, and in one of a version before. So a class that a user deletes or changes stays as the user left it, as long as the
// CSIDriver is there. It is no default where there is one already.
func localStorage(ctx context.Context, c client.Client) error {
	_, err := client.Get[*storagev1.CSIDriver](ctx, c, api.Key{Name: volume.Local})
	if err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	classes, err := client.List[*storagev1.StorageClass](ctx, c, client.ListOptions{})
	if err != nil {
		return fmt.Errorf("reading the storage classes: %w", err)
	}
	class := localClass()
	if volume.DefaultClass(classes) != nil {
		class.Annotations = nil
	}
	for _, obj := range []api.Object{class, localDriver()} {
		if _, err := c.Create(ctx, obj); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return nil
}

func localClass() *storagev1.StorageClass {
	waits, deletes := storagev1.VolumeBindingWaitForFirstConsumer, corev1.PersistentVolumeReclaimDelete
	return &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: volume.LocalClass, Annotations: map[string]string{volume.DefaultClassAnnotations()[0]: "true"}},
		Provisioner: volume.Local, VolumeBindingMode: &waits, ReclaimPolicy: &deletes, // nothing lets its volumes grow yet
	}
}

func localDriver() *storagev1.CSIDriver {
	file := storagev1.FileFSGroupPolicy
	return &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: volume.Local},
		Spec: storagev1.CSIDriverSpec{AttachRequired: new(false), PodInfoOnMount: new(false), StorageCapacity: new(false), FSGroupPolicy: &file,
			VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}},
	}
}
