package devices

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// askTimeout is how long a plugin has to say who it is; one that does not is asked again after askAgain.
	askTimeout = 5 * time.Second
	askAgain   = 2 * time.Second
)

// driver is a driver that has registered.
type driver struct {
	name   string
	socket string // by which it registered
	conn   *grpc.ClientConn
	client dra.DRAPluginClient
}

// socket tells one socket from another that takes its name.
type socket struct {
	inode    uint64
	modified int64
}

// Run follows the sockets in the registration directory until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	dir := filepath.Join(m.Dir, "plugins_registry")
	for _, d := range []string{dir, filepath.Join(m.Dir, "plugins")} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return fmt.Errorf("making the directory where drivers register: %w", err)
		}
	}
	changes, err := watch(ctx, dir)
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	defer m.forgetAll()
	known := map[string]socket{}
	for {
		again := m.look(ctx, dir, known)
		var timer <-chan time.Time
		if again {
			timer = time.After(askAgain)
		}
		select {
		case <-changes:
		case <-timer:
		case <-ctx.Done():
			return nil
		}
	}
}

// look compares the directory with what is known. It reports whether a plugin could not be asked.
func (m *Manager) look(ctx context.Context, dir string, known map[string]socket) (again bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		m.Log.Warn("reading the directory where drivers register failed", "err", err)
		return true
	}
	there := map[string]socket{}
	for _, e := range entries {
		var st unix.Stat_t
		path := filepath.Join(dir, e.Name())
		if err := unix.Stat(path, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			there[path] = socket{st.Ino, st.Mtim.Nano()}
		}
	}
	for path, s := range known {
		if there[path] != s {
			delete(known, path)
			m.forget(path)
		}
	}
	for path, s := range there {
		if known[path] == s {
			continue
		}
		if err := m.register(ctx, path); err != nil {
			if ctx.Err() == nil {
				m.Log.Warn("registering a plugin failed, trying again", "socket", path, "err", err)
			}
			again = true
			continue
		}
		known[path] = s
	}
	return again
}

// register asks the plugin behind a socket who it is, and takes it if it is a driver of devices.
func (m *Manager) register(ctx context.Context, path string) error {
	conn, err := dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	plugin := registration.NewRegistrationClient(conn)
	call, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := plugin.GetInfo(call, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("GetInfo: %w", err)
	}
	d, refused := m.take(path, info)
	status := &registration.RegistrationStatus{PluginRegistered: refused == nil}
	if refused != nil {
		status.Error = refused.Error()
		m.Log.Warn("plugin refused", "socket", path, "name", info.Name, "why", refused)
	}
	if _, err := plugin.NotifyRegistrationStatus(call, status); err != nil {
		if d != nil {
			m.forget(path)
		}
		return fmt.Errorf("NotifyRegistrationStatus: %w", err)
	}
	if d != nil {
		m.Log.Info("DRA driver registered", "driver", d.name, "socket", path)
		if m.Arrived != nil {
			m.Arrived()
		}
	}
	return nil
}

// take adds the driver that a plugin says it is, or returns why it cannot be used.
func (m *Manager) take(path string, info *registration.PluginInfo) (*driver, error) {
	if info.Type != registration.DRAPlugin {
		return nil, fmt.Errorf("plugins of type %q have no use here", info.Type)
	}
	endpoint := info.Endpoint
	if endpoint == "" {
		endpoint = path
	}
	d := &driver{name: info.Name, socket: path}
	var err error
	if d.conn, err = dial(endpoint); err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(info.SupportedVersions, dra.DRAPluginService):
		d.client = dra.NewDRAPluginClient(d.conn)
	case slices.Contains(info.SupportedVersions, drabeta.DRAPluginService):
		d.client = drabeta.V1Beta1ClientWrapper{DRAPluginClient: drabeta.NewDRAPluginClient(d.conn)}
	default:
		return nil, errors.Join(fmt.Errorf("none of its versions %q is known here: %s, %s", info.SupportedVersions, dra.DRAPluginService, drabeta.DRAPluginService), d.conn.Close())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drivers[d.name] = append(m.drivers[d.name], d)
	return d, nil
}

// dial connects with a socket when it is first called.
func dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// forget forgets the driver that registered by a socket.
func (m *Manager) forget(path string) {
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

func (m *Manager) forgetAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range m.drivers {
		for _, d := range all {
			d.conn.Close()
		}
	}
	m.drivers = map[string][]*driver{}
}

// watch returns a channel that has a value after something in a directory changed, until ctx ends.
func watch(ctx context.Context, dir string) (<-chan struct{}, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM); err != nil {
		return nil, errors.Join(err, events.Close())
	}
	changes := make(chan struct{}, 1)
	context.AfterFunc(ctx, func() { events.Close() })
	go func() { // ends with events
		buf := make([]byte, 4096)
		for {
			if _, err := events.Read(buf); err != nil {
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes, nil
}
