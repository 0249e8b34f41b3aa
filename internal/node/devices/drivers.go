package devices

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/knarr-io/knarr/internal/node/plugins"
)

// driver is a driver that has registered.
type driver struct {
	name   string
	socket string // by which it registered
	conn   *grpc.ClientConn
	client dra.DRAPluginClient
}

// Register implements plugins.Handler.
func (m *Manager) Register(_ context.Context, p plugins.Plugin) error {
	d := &driver{name: p.Name, socket: p.Socket}
	var err error
	if d.conn, err = plugins.Dial(m.Root.Host(p.Endpoint)); err != nil {
		return err
	}
	switch {
	case slices.Contains(p.Versions, dra.DRAPluginService):
		d.client = dra.NewDRAPluginClient(d.conn)
	case slices.Contains(p.Versions, drabeta.DRAPluginService):
		d.client = drabeta.V1Beta1ClientWrapper{DRAPluginClient: drabeta.NewDRAPluginClient(d.conn)}
	default:
		return errors.Join(fmt.Errorf("none of its versions %q is known here: %s, %s", p.Versions, dra.DRAPluginService, drabeta.DRAPluginService), d.conn.Close())
	}
	m.mu.Lock()
	m.drivers[d.name] = append(m.drivers[d.name], d)
	m.mu.Unlock()
	m.Log.Info("DRA driver registered", "driver", d.name, "socket", p.Socket)
	if m.Arrived != nil {
		m.Arrived()
	}
	return nil
}

// Forget implements plugins.Handler.
func (m *Manager) Forget(_ context.Context, path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, all := range m.drivers {
		for _, d := range all {
			if d.socket == path {
				m.Log.Info("DRA driver gone", "driver", name, "socket", path)
				d.conn.Close()
			}
		}
		all = slices.DeleteFunc(all, func(d *driver) bool { return d.socket == path })
		if m.drivers[name] = all; len(all) == 0 {
			delete(m.drivers, name)
		}
	}
}

// Close ends the connections with drivers.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range m.drivers {
		for _, d := range all {
			d.conn.Close()
		}
	}
	m.drivers = map[string][]*driver{}
}
