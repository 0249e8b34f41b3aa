package containerd

import (
	"testing"

	"github.com/knarr-io/knarr/internal/node/runtime/runtimetest"
)

func TestSuite(t *testing.T) {
	s, _ := supervise(t, e2eOptions(t))
	importTestImage(t, s)
	runtimetest.Run(t, runtimetest.Config{Runtime: dial(t, s), Image: testImage, HostNetwork: true, CgroupParent: cgroupOf(s.options.DataDir)})
}
