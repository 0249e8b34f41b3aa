package hollow

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/task"
)

// releaseVolumes lets go of deleted local volumes of the hollow nodes until ctx ends: there is no directory to be removed first. One watch
// serves all nodes.
func releaseVolumes(ctx context.Context, cfg Config) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mine := map[string]bool{}
	for i := cfg.First; i < cfg.First+cfg.Count; i++ {
		mine[Name(i)] = true
	}
	if len(mine) == 0 {
		return
	}
	client.Follow(ctx, log, cfg.Client(Name(cfg.First)), api.PersistentVolumes, client.ListOptions{}, func(b client.Batch) {
		for _, e := range b.Events {
			pv := e.Object.(*corev1.PersistentVolume)
			host := localvolume.Host(pv)
			if e.Type == client.Deleted || !mine[host] {
				continue
			}
			for ctx.Err() == nil {
				_, err := local.Release(ctx, cfg.Client(host), host, pv)
				if err == nil {
					break
				}
				log.Warn("releasing a hollow node's local volume failed, trying again", "volume", pv.Name, "err", err)
				task.Pause(ctx, time.Second)
			}
		}
	})
}
