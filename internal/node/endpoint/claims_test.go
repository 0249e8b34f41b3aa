package endpoint

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/mount"
	"github.com/knarr-io/knarr/internal/node/persistent"
)

// newClaims returns the claims of a node on which pod default/p has claim default/data, of a mebibyte, with a file of 64 KiB.
func newClaims(t *testing.T) *Claims {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := mount.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
	})
	m := &persistent.Mounter{Pods: filepath.Join(dir, "pods"), Local: &local.Store{Dir: filepath.Join(dir, "volumes")}, Node: func() *corev1.Node { return nil }}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "uid-1"}}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver, VolumeHandle: "pv"}},
		ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: "data"},
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"}}
	at, err := m.Mount(t.Context(), pod, &persistent.Volume{Name: "v", Claim: claim, PV: pv})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at.Path, "file"), make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Claims{Mounter: m, Keeper: &local.Keeper{Store: m.Local, Log: slog.New(slog.DiscardHandler)}}
}

func TestStatsOfClaims(t *testing.T) {
	c := newClaims(t)
	now := time.Now()
	got := c.stats(t.Context(), now)["uid-1"]
	if len(got) != 1 || got[0].Name != "v" || got[0].PVCRef == nil || got[0].PVCRef.Name != "data" || got[0].PVCRef.Namespace != "default" {
		t.Fatalf("%+v", got)
	}
	used := *got[0].UsedBytes
	if *got[0].CapacityBytes != 1<<20 || used < 64<<10 || used > 1<<20 || *got[0].AvailableBytes > 1<<20-used || *got[0].InodesUsed != 2 {
		t.Errorf("capacity %d, used %d, available %d, inodes %d", *got[0].CapacityBytes, used, *got[0].AvailableBytes, *got[0].InodesUsed)
	}
	// More than was asked for may be there; then nothing is left.
	all, err := c.Mounter.Mounts()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if err := os.WriteFile(filepath.Join(all[0].At, "more"), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := c.stats(t.Context(), now.Add(claimsFresh/2))["uid-1"]; len(again) != 1 || *again[0].UsedBytes != used {
		t.Errorf("measured again at once: %+v", again)
	}
	if later := c.stats(t.Context(), now.Add(claimsFresh))["uid-1"]; len(later) != 1 || *later[0].UsedBytes < 2<<20 || *later[0].AvailableBytes != 0 {
		t.Errorf("later: %+v", later)
	}
}

func TestMetricsOfClaims(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newClaimMetrics(newClaims(t)))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
		if m := f.GetMetric(); len(m) != 1 || m[0].GetLabel()[0].GetValue() != "default" || m[0].GetLabel()[1].GetValue() != "data" {
			t.Errorf("%s: %v", f.GetName(), m)
		}
	}
	want := strings.Fields("kubelet_volume_stats_available_bytes kubelet_volume_stats_capacity_bytes kubelet_volume_stats_inodes kubelet_volume_stats_inodes_free kubelet_volume_stats_inodes_used kubelet_volume_stats_used_bytes")
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

func TestVolumesAreListedWithTheirPods(t *testing.T) {
	ask := func(e *Endpoint) (list []local.Listed) {
		t.Helper()
		rec := httptest.NewRecorder()
		if err := e.serveVolumes(rec, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/volumes", nil)); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := ask(&Endpoint{Settings: Settings{Claims: newClaims(t)}})
	if len(list) != 1 || list[0].Handle != "pv" || list[0].Claim != "data" || list[0].Used < 64<<10 || !slices.Equal(list[0].Pods, []string{"default/p"}) || list[0].Orphan {
		t.Errorf("%+v", list)
	}
	if list := ask(&Endpoint{}); list == nil || len(list) != 0 {
		t.Errorf("a hollow node has %+v", list)
	}
}
