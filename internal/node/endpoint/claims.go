package endpoint

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/persistent"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// claimsFresh is how long what is in the volumes of claims is not measured again: walking their files costs (as the kubelet's volumeStatsAggPeriod).
const claimsFresh = time.Minute

// Claims measures the volumes that pods have by claims.
type Claims struct {
	Mounter *persistent.Mounter
	Keeper  *local.Keeper

	mu       sync.Mutex
	measured map[string]measured // by mount
}

type measured struct {
	at time.Time
	fs kubelet.FsStats
}

// stats returns what a summary says of pods' claims, by pod.
func (c *Claims) stats(ctx context.Context, now time.Time) map[types.UID][]kubelet.VolumeStats {
	all, err := c.Mounter.Mounts()
	if err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.measured
	c.measured = map[string]measured{}
	sizes := map[string]local.About{}
	if list, err := c.Mounter.Local.List(); err == nil {
		sizes = list
	}
	out := map[types.UID][]kubelet.VolumeStats{}
	for _, r := range all {
		if r.Claim == "" || r.Block {
			continue
		}
		m, ok := old[r.At]
		if !ok || now.Sub(m.at) >= claimsFresh {
			limit := int64(0)
			if a := sizes[r.Handle]; r.Driver == localvolume.Driver && !a.Limited {
				limit = a.Bytes
			}
			m = measured{at: now}
			if m.fs, ok = measure(ctx, r.At, limit); !ok {
				continue
			}
			m.fs.Time = metav1.NewTime(now)
		}
		c.measured[r.At] = m
		out[r.Pod] = append(out[r.Pod], kubelet.VolumeStats{Name: r.Name, FsStats: m.fs, PVCRef: &kubelet.PVCReference{Name: r.Claim, Namespace: r.Namespace}})
	}
	return out
}

// measure returns how full a volume is. One that is a directory among others of its file system is as large as was asked for: size; what is
// used of it is what its files take. All others are file systems of their own: size is 0.
func measure(ctx context.Context, dir string, size int64) (kubelet.FsStats, bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return kubelet.FsStats{}, false
	}
	block := uint64(st.Bsize)
	all, left, used := st.Blocks*block, st.Bavail*block, (st.Blocks-st.Bfree)*block
	inodes, free, taken := st.Files, st.Ffree, st.Files-st.Ffree
	if size > 0 {
		use := volume.Measure(ctx, dir)
		if ctx.Err() != nil {
			return kubelet.FsStats{}, false // that was not all
		}
		all, used, taken = uint64(size), use.Bytes, use.Inodes
		left = min(left, all-min(all, used))
	}
	return kubelet.FsStats{CapacityBytes: &all, AvailableBytes: &left, UsedBytes: &used, Inodes: &inodes, InodesFree: &free, InodesUsed: &taken}, true
}

// serveVolumes lists the local volumes on the node's disk.
func (e *Endpoint) serveVolumes(w http.ResponseWriter, r *http.Request) error {
	if e.Claims == nil {
		return sendJSON(w, []local.Listed{})
	}
	list, err := e.Claims.Keeper.Listed(r.Context(), func(ctx context.Context, dir string) uint64 { return volume.Measure(ctx, dir).Bytes })
	if err != nil {
		return err
	}
	all, err := e.Claims.Mounter.Mounts()
	if err != nil {
		return err
	}
	for i := range list {
		for _, m := range all {
			if name := m.Namespace + "/" + m.PodName; m.Driver == localvolume.Driver && m.Handle == list[i].Handle && !slices.Contains(list[i].Pods, name) {
				list[i].Pods = append(list[i].Pods, name)
			}
		}
		slices.Sort(list[i].Pods)
	}
	return sendJSON(w, list)
}
