package plugins

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/knarr-io/knarr/internal/node/mount"
)

const (
	// askTimeout is how long a plugin has to say who it is; one that does not is asked again after askAgain.
	askTimeout = 5 * time.Second
	askAgain   = 2 * time.Second
)

// Plugin is one that wants to register.
type Plugin struct {
	Name string
	// Endpoint is where it is called, as it names it; Socket is that by which it registers, on this machine.
	Endpoint, Socket string
	Versions         []string
}

// Handler deals with plugins of one kind.
type Handler interface {
	// Register takes a plugin, or returns why it cannot be used.
	Register(ctx context.Context, p Plugin) error
	// Forget gives up the plugin that registered by a socket, which is gone.
	Forget(ctx context.Context, socket string)
}

// Registry follows the sockets of one agent.
type Registry struct {
	Root Root
	Log  *slog.Logger
	// Handlers are those of each type of plugin.
	Handlers map[string]Handler
}

// socket tells one socket from another that takes its name.
type socket struct {
	inode    uint64
	modified int64
}

// taken is a socket whose plugin was asked, and who has it; nil for one that was refused.
type taken struct {
	socket
	by Handler
}

// Prepare makes the root with its directories. What drivers mount below it is seen by the agent, and what the agent mounts by drivers: it is a
// mount of its own, shared (mount_namespaces(7)).
func (r Root) Prepare() error {
	if err := r.make(); err != nil {
		return err
	}
	if err := mount.Share(string(r)); err != nil {
		return fmt.Errorf("sharing the mounts of drivers: %w", err)
	}
	return nil
}

// make makes the directories, which drivers on the machine itself find there.
func (r Root) make() error {
	for _, dir := range []string{r.Registry(), r.Sockets(), r.Pods()} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("making the directory of drivers: %w", err)
		}
	}
	return nil
}

// Run follows the sockets in the registration directory until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	dir := r.Root.Registry()
	if err := r.Root.make(); err != nil {
		return err
	}
	changes, err := watch(ctx, dir)
	if err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	known := map[string]taken{}
	for {
		var timer <-chan time.Time
		if r.look(ctx, dir, known) {
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
func (r *Registry) look(ctx context.Context, dir string, known map[string]taken) (again bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.Log.Warn("reading the directory where drivers register failed", "err", err)
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
		if there[path] == s.socket {
			continue
		}
		delete(known, path)
		if s.by != nil {
			s.by.Forget(ctx, path)
		}
	}
	for path, s := range there {
		if _, ok := known[path]; ok {
			continue
		}
		by, err := r.register(ctx, path)
		if err != nil {
			if ctx.Err() == nil {
				r.Log.Warn("registering a plugin failed, trying again", "socket", path, "err", err)
			}
			again = true
			continue
		}
		known[path] = taken{s, by}
	}
	return again
}

// register asks the plugin behind a socket what it is, and hands it to who deals with its kind.
func (r *Registry) register(ctx context.Context, path string) (by Handler, err error) {
	conn, err := Dial(path)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	plugin := registration.NewRegistrationClient(conn)
	info, err := ask(ctx, plugin)
	if err != nil {
		return nil, fmt.Errorf("GetInfo: %w", err)
	}
	p := Plugin{Name: info.Name, Endpoint: info.Endpoint, Socket: path, Versions: info.SupportedVersions}
	if p.Endpoint == "" {
		p.Endpoint = path
	}
	refused := fmt.Errorf("plugins of type %q have no use here", info.Type)
	if by = r.Handlers[info.Type]; by != nil {
		refused = by.Register(ctx, p)
	}
	status := &registration.RegistrationStatus{PluginRegistered: refused == nil}
	if refused != nil {
		status.Error, by = refused.Error(), nil
		r.Log.Warn("plugin refused", "socket", path, "name", info.Name, "why", refused)
	}
	call, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := plugin.NotifyRegistrationStatus(call, status); err != nil {
		if by != nil {
			by.Forget(ctx, path)
		}
		return nil, fmt.Errorf("NotifyRegistrationStatus: %w", err)
	}
	return by, nil
}

func ask(ctx context.Context, plugin registration.RegistrationClient) (*registration.PluginInfo, error) {
	call, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return plugin.GetInfo(call, &registration.InfoRequest{})
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
