package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// startNode runs a whole node: control plane, agent, network, DNS and containerd. The returned function takes it down and removes
// every trace.
func (b *bench) startNode(ctx context.Context, name string) (*server, func() error, error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("running containers needs root")
	}
	libexec := filepath.Join(filepath.Dir(b.knarr), "libexec")
	for _, f := range []string{"runc", "containerd-shim-runc-v2", "knarr-cni", "pause"} {
		if _, err := os.Stat(filepath.Join(libexec, f)); err != nil {
			return nil, nil, fmt.Errorf("the executables that come with knarr are not there (make build): %w", err)
		}
	}
	dir := filepath.Join(b.dir, name)
	down := func() error {
		out, err := exec.Command(b.knarr, "down", "--data-dir", dir, "--delete-data").CombinedOutput()
		if err != nil {
			return fmt.Errorf("knarr down: %w\n%s", err, out)
		}
		return nil
	}
	// Addresses of their own, beside a cluster that may run on this machine.
	s, err := b.startServer(ctx, dir, "--cluster-cidr", "10.154.0.0/16", "--service-cidr", "10.155.0.0/16", "--node-name", "bench")
	if err != nil {
		return nil, nil, errors.Join(err, down())
	}
	stop := func() error { return errors.Join(s.stop(), down()) }
	if _, err := s.waitNodes(ctx, 1); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return s, stop, nil
}

// measureNode looks at a whole node without pods.
func measureNode(ctx context.Context, b *bench) (_ []figure, err error) {
	s, stop, err := b.startNode(ctx, "node")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return b.watchIdle(ctx, s, "<= 150 MB", "", func() (map[string][]int, error) {
		pids, err := children(s.cmd.Process.Pid)
		return map[string][]int{"containerd": pids}, err
	})
}

// children returns the processes that pid started and that still run.
func children(pid int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	var out []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		for _, w := range bytes.Fields(b) {
			n, err := strconv.Atoi(string(w))
			if err != nil {
				return nil, fmt.Errorf("%s: %q", f, b)
			}
			out = append(out, n)
		}
	}
	return out, nil
}

// importPause builds an image of the pause program, which does nothing until it is ended, and imports it into the node of s.
func (b *bench) importPause(ctx context.Context, s *server, image string) error {
	dir := filepath.Join(b.dir, "image")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pause, err := os.ReadFile(filepath.Join(filepath.Dir(b.knarr), "libexec", "pause"))
	if err != nil {
		return err
	}
	spec := fmt.Sprintf("names: [%s]\nlayers:\n- files:\n  - {from: pause, to: /wait}\nconfig:\n  entrypoint: [/wait]\n", image)
	tar := filepath.Join(dir, "wait.tar")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "pause"), pause, 0o755), os.WriteFile(filepath.Join(dir, "image.yaml"), []byte(spec), 0o644)); err != nil {
		return err
	}
	for _, args := range [][]string{{"image", "build", dir, "-o", tar}, {"image", "import", "--data-dir", s.dataDir, tar}} {
		if out, err := exec.CommandContext(ctx, b.knarr, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("knarr %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
