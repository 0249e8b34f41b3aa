package containerd

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/knarr-io/knarr/internal/image"
)

// importPause sees to it that the pause image is in the runtime. It is assembled from the pause executable, so that no
// registry is needed to start a pod.
func importPause(ctx context.Context, o *Options) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	built, err := image.Build(ctx, o.Libexec, &image.Spec{
		Names:  []string{PauseImage},
		Layers: []image.Layer{{Files: []image.File{{From: "pause", To: "/pause"}}}},
		Config: image.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"},
	})
	if err != nil {
		return fmt.Errorf("assemble the pause image: %w", err)
	}
	digest, err := built.Digest()
	if err != nil {
		return fmt.Errorf("assemble the pause image: %w", err)
	}
	store, err := image.OpenStore(o.Endpoint())
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.SetDefaultSnapshotter(ctx, o.Snapshotter); err != nil {
		return fmt.Errorf("set the default snapshotter: %w", err)
	}
	have, ok, err := store.Get(ctx, PauseImage)
	if err != nil || ok && have.Problem == nil && have.Digest == digest.String() {
		return err
	}
	var archive bytes.Buffer
	if err := image.Write(&archive, built); err != nil {
		return fmt.Errorf("assemble the pause image: %w", err)
	}
	if _, err := store.Import(ctx, &archive, ""); err != nil {
		return fmt.Errorf("import the pause image: %w", err)
	}
	return nil
}
