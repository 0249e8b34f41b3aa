package containerd

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/knarr-io/knarr/internal/node/command"
	"github.com/knarr-io/knarr/internal/node/runtime/runtimetest"
)

func TestSuite(t *testing.T) {
	s, _ := supervise(t, e2eOptions(t))
	importTestImage(t, s)
	r, err := command.Open(dial(t, s), s.Endpoint(), filepath.Join(s.options.DataDir, "commands"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	runtimetest.Run(t, runtimetest.Config{Runtime: r, Image: testImage, HostNetwork: true, CgroupParent: cgroupOf(s.options.DataDir)})
}
