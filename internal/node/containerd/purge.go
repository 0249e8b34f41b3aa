package containerd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/node/loop"
)

// DefaultCgroup is the cgroup below which the agent puts pods, unless it is told another.
const DefaultCgroup = "/knarr"

// Purge ends and removes everything that the runtime of a data directory has left on the machine, also after a crash:
// the runtime, shims and containers, mounts below the data directory and loop devices over files there, and the cgroups named (DefaultCgroup if none; a
// machine with several nodes gives each one of its own). Files stay, but for those that describe what was removed: the
// images are there for the next start. Links and firewall rules are the network's to purge. It is idempotent; what it
// could not remove is in the error.
func Purge(ctx context.Context, dataDir string, cgroups ...string) error {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	if len(cgroups) == 0 {
		cgroups = []string{DefaultCgroup}
	}
	o := &Options{DataDir: dataDir}
	var errs []error
	// The runtime first: else it would take note of every end, and may start something anew.
	errs = append(errs, killMatching(ctx, func(argv []string) bool {
		i := slices.Index(argv, "--config")
		return i >= 0 && i+1 < len(argv) && argv[i+1] == o.configFile()
	}))
	// A shim is told the runtime's address.
	errs = append(errs, killMatching(ctx, func(argv []string) bool {
		i := slices.Index(argv, "-address")
		return i >= 0 && i+1 < len(argv) && argv[i+1] == o.Endpoint()
	}))
	states, err := runcStates(dataDir)
	errs = append(errs, err)
	errs = append(errs, killContainers(ctx, states))
	for _, s := range states {
		for _, dir := range s.CgroupPaths {
			// A container's own cgroup is named after it. Anything else may hold more than the container.
			if s.ID != "" && filepath.Base(dir) == s.ID {
				errs = append(errs, removeCgroup(ctx, dir))
			}
		}
	}
	roots, err := cgroupMounts()
	errs = append(errs, err)
	for _, root := range roots {
		for _, name := range cgroups {
			if clean := filepath.Clean("/" + name); clean != "/" {
				errs = append(errs, removeCgroup(ctx, filepath.Join(root, clean)))
			}
		}
	}
	if err := unmountBelow(dataDir); err != nil {
		return errors.Join(append(errs, err)...) // removing files now might reach into a volume
	}
	errs = append(errs, loop.DetachBelow(dataDir))
	for _, dir := range []string{filepath.Join(o.Dir(), "state"), runcRoot(dataDir), shimSockets(dataDir), o.Endpoint(), o.Endpoint() + ".ttrpc"} {
		errs = append(errs, os.RemoveAll(dir))
	}
	if shared := filepath.Dir(shimSockets(dataDir)); shared != o.Dir() {
		_ = os.Remove(shared) // fails while another data directory has sockets there
	}
	return errors.Join(errs...)
}

// killMatching kills the processes whose arguments match, waits for their end, and looks again: one of them may have started
// another before it died.
func killMatching(ctx context.Context, match func(argv []string) bool) error {
	for {
		var pids []int
		if err := eachProcess(func(pid int, argv []string) {
			if match(argv) {
				pids = append(pids, pid)
			}
		}); err != nil || len(pids) == 0 {
			return err
		}
		if err := kill(ctx, pids); err != nil {
			return err
		}
	}
}

// runcState is what Purge needs of the state.json that runc keeps per container.
type runcState struct {
	ID          string            `json:"id"`
	PID         int               `json:"init_process_pid"`
	StartTicks  uint64            `json:"init_process_start"`
	CgroupPaths map[string]string `json:"cgroup_paths"`
}

func runcStates(dataDir string) ([]runcState, error) {
	files, err := filepath.Glob(filepath.Join(runcRoot(dataDir), "*", "*", "state.json"))
	if err != nil {
		return nil, err
	}
	var states []runcState
	var errs []error
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s runcState
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		states = append(states, s)
	}
	return states, errors.Join(errs...)
}

// killContainers kills containers' first processes, and with each of them its process namespace.
func killContainers(ctx context.Context, states []runcState) error {
	var pids []int
	for _, s := range states {
		if start, err := startTicks(s.PID); err == nil && start == s.StartTicks {
			pids = append(pids, s.PID)
		}
	}
	return kill(ctx, pids)
}

// startTicks returns when a process was started, field 22 of proc_pid_stat(5). A zombie is gone already: who has to wait
// for it may never do so.
func startTicks(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command's name, in parentheses, may itself hold blanks and parentheses.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields after the name", pid, len(fields))
	}
	if fields[0] == "Z" {
		return 0, fs.ErrNotExist
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// kill kills processes and waits, up to ten seconds for all, until they have ended.
func kill(ctx context.Context, pids []int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
		fds = append(fds, fd)
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	for _, fd := range fds {
		for {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("processes do not end: %w", err)
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
			if n > 0 {
				break
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
	return nil
}

// cgroupMounts returns where cgroup hierarchies are mounted: one of v2, or several of v1.
func cgroupMounts() ([]string, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, m := range all {
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			dirs = append(dirs, m.point)
		}
	}
	return dirs, nil
}

// removeCgroup removes a cgroup and those below it, killing what is in them. One that is not there is no error.
func removeCgroup(ctx context.Context, dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := emptyCgroup(ctx, d); err != nil {
			return err
		}
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return nil
}

// emptyCgroup kills what is in one cgroup, again and again while processes are born in it.
func emptyCgroup(ctx context.Context, dir string) error {
	for range 20 {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		var pids []int
		for s := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(s); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		if len(pids) == 0 {
			return nil
		}
		if err := kill(ctx, pids); err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
	}
	return fmt.Errorf("cgroup %s does not become empty", dir)
}

// mountPoint is one line of mountinfo.
type mountPoint struct{ point, fstype string }

// mounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)), in the order in which they were mounted.
func mounts() ([]mountPoint, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mountPoint
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m, ok := parseMount(lines.Text()); ok {
			all = append(all, m)
		}
	}
	return all, lines.Err()
}

// unescape undoes mountinfo's octal escapes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func parseMount(line string) (mountPoint, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 5 || len(rest) < 1 {
		return mountPoint{}, false
	}
	return mountPoint{unescape.Replace(fields[4]), rest[0]}, true
}

// unmountBelow unmounts all that is mounted below dir, not at dir itself, last first. It detaches, so that a process that still
// looks into a mount does not hold it.
func unmountBelow(dir string) error {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(all) {
		if !strings.HasPrefix(m.point, dir+"/") {
			continue
		}
		if err := unix.Unmount(m.point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", m.point, err))
		}
	}
	return errors.Join(errs...)
}
