package upkeep

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/diskuse"
	"github.com/knarr-io/knarr/internal/node/images"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/logs"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Settings are what a keeper looks after, and its limits.
type Settings struct {
	Pods    *pod.Set
	Client  client.Client
	Runtime runtime.Runtime
	Cgroups pod.Cgroups
	Images  *images.Store
	Disks   *diskuse.Meter
	Tasks   *task.Group
	Log     *slog.Logger

	DataDir string // whose disk counts
	// Rooms measures what is left of the machine.
	Rooms func() lifecycle.Rooms
	// MaxLogSize is the length in bytes at which a container's log is rotated, MaxLogFiles how many are kept.
	MaxLogSize  int64
	MaxLogFiles int
	// ImageGCHigh and ImageGCLow are percentages of disk use between which unused images are removed.
	ImageGCHigh, ImageGCLow int
	// Hollow nodes have nothing to look after.
	Hollow bool
}

// Keeper looks after logs, disk and memory.
type Keeper struct {
	Settings
	// Idle keepers tend nothing: those of hollow nodes.
	Idle          atomic.Bool
	imagesChecked time.Time // when the disk was last looked at for images to remove
	evicting      atomic.Bool
}

// New returns a keeper; its Tend is called with each heartbeat.
func New(s Settings) *Keeper {
	k := &Keeper{Settings: s}
	k.Idle.Store(s.Hollow)
	return k
}

// imageCheck is how often the disk is looked at for images to remove.
const imageCheck = 5 * time.Minute

// Tend rotates logs that grew too long and removes unused images when the disk fills.
func (k *Keeper) Tend(ctx context.Context, now time.Time) {
	if k.Idle.Load() {
		return
	}
	k.lookForEvictions(ctx, now)
	for _, w := range k.Pods.All() {
		for _, run := range w.Running() {
			path := w.LogPath(run.Name, run.Attempt)
			_, err := logs.Rotate(path, k.MaxLogSize, k.MaxLogFiles, now, func() error { return k.Runtime.ReopenContainerLog(ctx, run.ID) })
			k.warn("rotating a log", task.Quiet(ctx, err), "pod", w.Key(), "container", run.Name)
		}
	}
	if now.Sub(k.imagesChecked) >= imageCheck {
		k.imagesChecked = now
		k.warn("removing unused images", task.Quiet(ctx, k.Images.Collect(ctx, k.Pods.Pods(), k.ImageGCHigh, k.ImageGCLow, k.diskUsed)))
	}
}

// warn logs an error of something that is tried again another time.
func (k *Keeper) warn(what string, err error, args ...any) {
	if err != nil {
		k.Log.Warn(what+" failed", append(args, "err", err)...)
	}
}
