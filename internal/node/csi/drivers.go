package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	authenticationv1 "k8s.io/api/authentication/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/plugins"
)

// callTimeout is how long a driver has for one answer, as the kubelet has it.
const callTimeout = 2 * time.Minute

// Settings are what a Manager needs.
type Settings struct {
	Client client.Client
	Node   string // the node's name
	Root   plugins.Root
	Log    *slog.Logger
	// Token asks for a token of a service account.
	Token func(ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	// Announce writes to the Node's status which volumes are in use, before a driver is asked to stage one.
	Announce func(ctx context.Context) error
	// Arrived is called when a driver has registered: pods may wait for it.
	Arrived func()
}

// Manager knows the drivers of the node and asks them.
type Manager struct {
	Settings

	mu      sync.Mutex
	drivers map[string][]*driver // by name; the newest last
	volumes map[string]*sync.Mutex
	writing sync.Mutex // of what the node says of its drivers
}

// driver is one that has registered.
type driver struct {
	name             string
	socket, endpoint string
	conn             *grpc.ClientConn
	node             spec.NodeClient
	can              map[spec.NodeServiceCapability_RPC_Type]bool
}

// New returns a Manager without drivers.
func New(s Settings) *Manager {
	return &Manager{Settings: s, drivers: map[string][]*driver{}, volumes: map[string]*sync.Mutex{}}
}

var _ plugins.Handler = (*Manager)(nil)

// Register implements plugins.Handler.
func (m *Manager) Register(ctx context.Context, p plugins.Plugin) error {
	if !slices.ContainsFunc(p.Versions, func(v string) bool { return strings.HasPrefix(strings.TrimPrefix(v, "v"), "1.") }) {
		return fmt.Errorf("none of the versions %q of CSI driver %s is known here: 1.x is", p.Versions, p.Name)
	}
	conn, err := plugins.Dial(m.Root.Host(p.Endpoint))
	if err != nil {
		return err
	}
	d := &driver{name: p.Name, socket: p.Socket, endpoint: p.Endpoint, conn: conn, node: spec.NewNodeClient(conn), can: map[spec.NodeServiceCapability_RPC_Type]bool{}}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := d.node.NodeGetInfo(call, &spec.NodeGetInfoRequest{})
	if err != nil {
		return errors.Join(fmt.Errorf("NodeGetInfo of driver %s: %w", d.name, err), conn.Close())
	}
	able, err := d.node.NodeGetCapabilities(call, &spec.NodeGetCapabilitiesRequest{})
	if err != nil {
		return errors.Join(fmt.Errorf("NodeGetCapabilities of driver %s: %w", d.name, err), conn.Close())
	}
	for _, c := range able.GetCapabilities() {
		d.can[c.GetRpc().GetType()] = true
	}
	if err := m.present(call, infoOf(d.name, info)); err != nil {
		return errors.Join(fmt.Errorf("writing down what driver %s says of the node: %w", d.name, err), conn.Close())
	}
	m.mu.Lock()
	m.drivers[d.name] = append(m.drivers[d.name], d)
	m.mu.Unlock()
	m.Log.Info("CSI driver registered", "driver", d.name, "socket", p.Socket, "node", info.GetNodeId())
	if m.Arrived != nil {
		m.Arrived()
	}
	return nil
}

// Forget implements plugins.Handler.
func (m *Manager) Forget(ctx context.Context, socket string) {
	m.mu.Lock()
	last := ""
	for name, all := range m.drivers {
		left := slices.DeleteFunc(slices.Clone(all), func(d *driver) bool { return d.socket == socket })
		if len(left) == len(all) {
			continue
		}
		for _, d := range all {
			if d.socket == socket {
				m.Log.Info("CSI driver gone", "driver", name, "socket", socket)
				d.conn.Close()
			}
		}
		if m.drivers[name] = left; len(left) == 0 {
			delete(m.drivers, name)
			last = name
		}
	}
	m.mu.Unlock()
	if last == "" {
		return
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := m.withdraw(call, last); err != nil && ctx.Err() == nil {
		m.Log.Warn("taking a driver from the CSINode failed", "driver", last, "err", err)
	}
}

// Close ends the connections with drivers, which stay registered for the next agent.
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

// driver returns the newest driver of a name.
func (m *Manager) driver(name string) (*driver, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all := m.drivers[name]; len(all) > 0 {
		return all[len(all)-1], nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// options returns what the cluster's administrator says of a driver. A driver without an object has the defaults.
func (m *Manager) options(ctx context.Context, name string) (storagev1.CSIDriverSpec, error) {
	obj, err := client.Get[*storagev1.CSIDriver](ctx, m.Client, api.Key{Name: name})
	if apierrors.IsNotFound(err) {
		return storagev1.CSIDriverSpec{}, nil
	}
	if err != nil {
		return storagev1.CSIDriverSpec{}, fmt.Errorf("reading CSIDriver %s: %w", name, err)
	}
	return obj.Spec, nil
}

// lock holds a volume of a driver, by its handle: one step at a time.
func (m *Manager) lock(name, handle string) (unlock func()) {
	m.mu.Lock()
	key := name + "^" + handle
	l := m.volumes[key]
	if l == nil {
		l = &sync.Mutex{}
		m.volumes[key] = l
	}
	m.mu.Unlock()
	l.Lock()
	return l.Unlock
}
