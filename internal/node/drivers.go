package node

import (
	"context"
	"log/slog"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/knarr-io/knarr/internal/node/csi"
	"github.com/knarr-io/knarr/internal/node/devices"
	"github.com/knarr-io/knarr/internal/node/plugins"
)

// drivers are those that register with the agent.
type drivers struct {
	registry *plugins.Registry
	devices  *devices.Manager
	volumes  *csi.Manager
}

// newDrivers makes the room for drivers. arrived is called when one has registered, announce writes to the Node's status which volumes are in use.
func newDrivers(cfg *Config, log *slog.Logger, arrived func(), announce func(context.Context) error) (*drivers, error) {
	root := plugins.RootOf(cfg.DataDir)
	d := &drivers{volumes: csi.New(csi.Settings{Client: cfg.Client, Node: cfg.NodeName, Root: root, Log: log, Token: cfg.Tokens, Announce: announce, Arrived: arrived})}
	var err error
	if d.devices, err = devices.New(devices.Settings{Client: cfg.Client, Dir: cfg.DataDir, Root: root, Log: log, Arrived: arrived}); err != nil {
		return nil, err
	}
	d.registry = &plugins.Registry{Root: root, Log: log, Handlers: map[string]plugins.Handler{registration.DRAPlugin: d.devices, registration.CSIPlugin: d.volumes}}
	return d, nil
}

// run follows the drivers until ctx ends.
func (d *drivers) run(ctx context.Context) error {
	defer d.devices.Close()
	defer d.volumes.Close()
	return d.registry.Run(ctx)
}
