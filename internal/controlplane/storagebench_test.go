package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/store"
)

// BenchmarkThousandClaims makes 1,000 claims of the built-in class, and a pod for each, at once, on 100 nodes, and waits until all claims are bound.
//
//	go test -run - -bench ThousandClaims -benchtime 1x ./internal/controlplane
func BenchmarkThousandClaims(b *testing.B) {
	const nodes, claims = 100, 1000
	for range b.N {
		b.StopTimer()
		p := running(b)
		capacity := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("64Gi"), "pods": resource.MustParse("110")}
		var objs []api.Object
		for i := range nodes {
			name := fmt.Sprintf("n%d", i)
			objs = append(objs, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}, Annotations: map[string]string{volume.LocalCapacity: "21474836480"}},
				Status: corev1.NodeStatus{Capacity: capacity, Allocatable: capacity, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}}})
		}
		made(b, p.Client.CreateMany(b.Context(), objs))
		objs = nil
		for i := range claims {
			name := fmt.Sprintf("c%d", i)
			objs = append(objs, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: new(volume.LocalClass), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}})
		}
		for i := range claims {
			name := fmt.Sprintf("c%d", i)
			objs = append(objs, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}},
				Volumes: []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}}})
		}
		b.StartTimer()
		began := time.Now()
		made(b, p.Client.CreateMany(b.Context(), objs))
		sent := time.Since(began)
		for bound := 0; bound < claims; {
			if bound = boundClaims(b, p.Client); time.Since(began) > time.Minute {
				b.Fatalf("%d of %d claims are bound", bound, claims)
			}
			time.Sleep(5 * time.Millisecond)
		}
		b.StopTimer()
		b.Logf("%d claims on %d nodes: created in %v, bound in %v", claims, nodes, sent.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
}

func made(tb testing.TB, results []client.Result) {
	tb.Helper()
	for _, r := range results {
		if r.Err != nil {
			tb.Fatal(r.Err)
		}
	}
}

func boundClaims(tb testing.TB, c client.Client) (n int) {
	tb.Helper()
	all, err := client.List[*corev1.PersistentVolumeClaim](tb.Context(), c, client.ListOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	for _, claim := range all {
		if claim.Status.Phase == corev1.ClaimBound {
			n++
		}
	}
	return n
}

// running returns a control plane that runs over memory until the test ends.
func running(tb testing.TB) *Plane {
	tb.Helper()
	p, err := New(Config{Backend: store.NewMem(), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), CA: []byte("ca"),
		Initial: Params{ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
		Log:     slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	<-p.Ready()
	return p
}
