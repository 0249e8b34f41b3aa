package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// request is one command to run.
type request struct {
	container      string // its ID
	args           []string
	stdin          io.Reader // nil: none
	stdout, stderr io.Writer // nil: discarded
	tty            bool
	resize         <-chan remotecommand.TerminalSize
	timeout        time.Duration // 0: none
}

// endGrace is how long after a command's end its clean-up may take; no caller waits for it.
const endGrace = 30 * time.Second

// run runs a command and returns the code that it ended with. A context.DeadlineExceeded says that its time-out passed and it was killed.
func (r *Runtime) run(ctx context.Context, req request) (uint32, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	container, err := r.client.LoadContainer(ctx, req.container)
	if err != nil {
		return 0, fmt.Errorf("finding container %s: %w", req.container, err)
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the specification of container %s: %w", req.container, err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("container %s does not run: %w", req.container, err)
	}
	outputs := newOutputs(req)
	input := newInput(req)
	id := "knarr-" + string(uuid.NewUUID())
	process, err := task.Exec(ctx, id, processOf(spec, req), r.streams(input, outputs, req.tty))
	if err != nil {
		return 0, fmt.Errorf("preparing a command in container %s: %w", req.container, err)
	}
	defer r.end(process)
	// Until the process is deleted: who waits for a process that never started would wait for ever.
	waiting, stop := context.WithCancel(namespaces.WithNamespace(context.WithoutCancel(ctx), namespace))
	defer stop()
	exited, err := process.Wait(waiting)
	if err != nil {
		return 0, fmt.Errorf("waiting for a command in container %s: %w", req.container, err)
	}
	if err := process.Start(ctx); err != nil {
		return 0, fmt.Errorf("starting %q in container %s: %w", req.args, req.container, err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { follow(waiting, process, input, req) })
	return r.await(ctx, process, exited, outputs, req)
}

// await waits for a command's end and for what it wrote.
func (r *Runtime) await(ctx context.Context, process client.Process, exited <-chan client.ExitStatus, outputs *outputs, req request) (uint32, error) {
	deadline := ctx
	if req.timeout > 0 {
		var cancel context.CancelFunc
		deadline, cancel = context.WithTimeout(ctx, req.timeout)
		defer cancel()
	}
	select {
	case status := <-exited:
		code, _, err := status.Result()
		if err != nil {
			return 0, fmt.Errorf("waiting for a command in container %s: %w", req.container, err)
		}
		outputs.drain(process)
		return code, nil
	case <-deadline.Done():
		kill, cancel := context.WithTimeout(namespaces.WithNamespace(context.WithoutCancel(ctx), namespace), endGrace)
		defer cancel()
		if err := process.Kill(kill, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return 0, errors.Join(deadline.Err(), fmt.Errorf("killing a command in container %s: %w", req.container, err))
		}
		return 0, fmt.Errorf("%q in container %s took longer than %v: %w", req.args, req.container, req.timeout, deadline.Err())
	}
}

// follow hands on what the other side does to its terminal and the end of its input, until ctx ends.
func follow(ctx context.Context, process client.Process, in *input, req request) {
	ended := in.ended
	if req.tty {
		ended = nil // the end of a terminal's input is a character of it
	}
	resize := req.resize
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-resize:
			if !ok {
				resize = nil
			} else if size.Width > 0 && size.Height > 0 {
				_ = process.Resize(ctx, uint32(size.Width), uint32(size.Height)) // the next one may work
			}
		case <-ended:
			ended = nil
			_ = process.CloseIO(ctx, client.WithStdinCloser) // it fails if the command has ended, too
		}
	}
}

// end removes what containerd has of a command. It takes seconds where something holds the command's output, and nobody need wait.
func (r *Runtime) end(process client.Process) {
	r.ending.Go(func() {
		ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), namespace), endGrace)
		defer cancel()
		if _, err := process.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			r.log.Warn("a command that has ended could not be removed from containerd", "exec", process.ID(), "err", err)
		}
	})
}

// processOf is the process to run: that of the container, with another command.
func processOf(spec *specs.Spec, req request) *specs.Process {
	p := *spec.Process
	p.Args, p.CommandLine, p.Terminal = req.args, "", req.tty
	if req.tty {
		p.Env = append(append([]string{}, p.Env...), "TERM=xterm")
	}
	return &p
}

// streams makes a command's FIFOs.
func (r *Runtime) streams(in *input, out *outputs, tty bool) cio.Creator {
	var stdin io.Reader
	if in.from != nil {
		stdin = in
	}
	var stderr io.Writer = out.stderr
	if tty {
		stderr = nil
	}
	options := []cio.Opt{cio.WithStreams(stdin, out.stdout, stderr), cio.WithFIFODir(r.fifos)}
	if tty {
		options = append(options, cio.WithTerminal)
	}
	return cio.NewCreator(options...)
}

// clean removes FIFOs that an earlier process left: its commands have lost their other side.
func clean(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
