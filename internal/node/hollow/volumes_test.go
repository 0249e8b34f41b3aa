package hollow

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// Nobody would take the finalizer from a hollow node's volume but the one who pretends to be its agent.
func TestDeletedVolumesOfHollowNodesGo(t *testing.T) {
	c := clienttest.New(t)
	volume := func(node string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "of-" + node, Finalizers: []string{localvolume.Finalizer}}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: "of-" + node}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}},
		}}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		releaseVolumes(ctx, Config{Count: 2, Client: func(string) client.Client { return c }})
	}()
	defer func() { cancel(); <-done }()
	real, hollow := volume("real"), volume(Name(1))
	for _, pv := range []*corev1.PersistentVolume{real, hollow} { // the hollow one last: with it, the other was seen
		clienttest.Create(t, c, pv)
		if err := client.Delete[*corev1.PersistentVolume](t.Context(), c, api.KeyOf(pv), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	gone, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if _, err := client.Await(gone, c, api.KeyOf(hollow), func(pv *corev1.PersistentVolume) (bool, error) { return pv == nil, nil }); err != nil {
		t.Errorf("the hollow node's volume is still there: %v", err)
	}
	if pv, err := client.Get[*corev1.PersistentVolume](t.Context(), c, api.KeyOf(real)); err != nil || len(pv.Finalizers) != 1 {
		t.Errorf("another node's volume: %+v %v", pv, err)
	}
}
