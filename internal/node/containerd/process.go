package containerd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running child: one that we started, or one that an earlier Knarr started.
type process struct {
	pid   int
	pidfd int           // names the process even when its pid is given to another
	gone  chan struct{} // closed when it has ended
	how   string        // how it ended, where we were its parent; read after gone
}

// generationFlag carries a hash of the configuration, the certificate and containerd's version on the child's command line, so that the
// next Knarr can tell by looking at /proc whether the child still is what it would start.
const generationFlag = "--generation"

// startProcess starts the child and returns once it serves, or the error with which it did not.
func startProcess(ctx context.Context, o *Options, generation string) (*process, error) {
	output, err := openLog(o.LogFile())
	if err != nil {
		return nil, err
	}
	defer output.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer readyR.Close()
	args := append(slices.Clone(o.Command[1:]), "--config", o.configFile(), generationFlag, generation, "--notify-ready")
	cmd := exec.Command(o.Command[0], args...)
	cmd.Dir = "/"
	// After a restart containerd looks for the shim, and the shim for runc, in PATH, whatever the configuration says;
	// without it, it takes the containers for dead.
	cmd.Env = append(os.Environ(), "PATH="+o.BinDir+":"+cmp.Or(os.Getenv("PATH"), "/usr/sbin:/usr/bin:/sbin:/bin"))
	cmd.Stdout, cmd.Stderr = output, output // a file, not a pipe: the child outlives us
	cmd.ExtraFiles = []*os.File{readyW}
	// A session of its own: signals from our terminal or to our process group must not reach it.
	pidfd := -1
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	err = cmd.Start()
	readyW.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Command[0], err)
	}
	p := &process{pid: cmd.Process.Pid, pidfd: pidfd, gone: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		p.how = "ended with status 0"
		if err != nil {
			p.how = err.Error()
		}
		close(p.gone)
	}()
	// The pipe answers when the child is ready, and ends when the child does.
	stop := context.AfterFunc(ctx, func() { readyR.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := readyR.Read(make([]byte, 16)); err == nil {
		return p, nil
	}
	p.stop(o.StopGrace)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("containerd did not start (%s): %s", p.how, lastLine(o.LogFile()))
}

// findProcesses returns the children that run with o's configuration file, as pid -> generation.
func findProcesses(configFile string) (map[int]string, error) {
	found := map[int]string{}
	err := eachProcess(func(pid int, argv []string) {
		if i := slices.Index(argv, "--config"); i < 0 || i+1 >= len(argv) || argv[i+1] != configFile {
			return
		}
		generation := ""
		if i := slices.Index(argv, generationFlag); i >= 0 && i+1 < len(argv) {
			generation = argv[i+1]
		}
		found[pid] = generation
	})
	return found, err
}

// eachProcess calls f with every process of our user and its arguments. Another user's could pretend to be ours.
func eachProcess(f func(pid int, argv []string)) error {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fi, err := d.Info()
		if err != nil {
			continue // ended meanwhile
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if err != nil || len(line) == 0 {
			continue // ended meanwhile, or a kernel thread
		}
		f(pid, strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00"))
	}
	return nil
}

// openProcess takes hold of a process that is not our child. still tells, once its pid can no longer be given away,
// whether it is the one that was meant.
func openProcess(pid int, still func() bool) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if !still() {
		unix.Close(fd)
		return nil, unix.ESRCH
	}
	p := &process{pid: pid, pidfd: fd, gone: make(chan struct{}), how: "ended"}
	// A pidfd is readable when its process has ended (pidfd_open(2)); the runtime's poller waits without a thread.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "pidfd")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		unix.Close(fd)
		return nil, err
	}
	go func() {
		defer close(p.gone)
		defer f.Close()
		_ = raw.Read(func(fd uintptr) bool {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, 0)
			return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
		})
	}()
	return p, nil
}

// signal sends a signal; a process that has ended is no error.
func (p *process) signal(s unix.Signal) error {
	err := unix.PidfdSendSignal(p.pidfd, s, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// stop ends the process and waits for its end: by SIGTERM and, after grace, SIGKILL.
func (p *process) stop(grace time.Duration) {
	defer p.close()
	_ = p.signal(unix.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.gone:
		return
	case <-t.C:
	}
	_ = p.signal(unix.SIGKILL)
	<-p.gone
}

// close lets go of a process.
func (p *process) close() { unix.Close(p.pidfd) }

// maxLog is the size from which a log is moved away when the child starts.
const maxLog = 10 << 20

// openLog opens the child's log for appending, after moving away one that has grown large.
func openLog(path string) (*os.File, error) {
	if fi, err := os.Stat(path); err == nil && fi.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// lastLine returns the last line of a log, for an error message.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 4 << 10
	if fi, err := f.Stat(); err == nil && fi.Size() > most {
		_, _ = f.Seek(-most, 2)
	}
	var b bytes.Buffer
	_, _ = b.ReadFrom(f)
	text := strings.TrimSpace(b.String())
	return text[strings.LastIndexByte(text, '\n')+1:]
}
