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
	"syscall"
	"time"
)

// cluster is the cluster under test, started from bin/knarr like a user's: a server and a machine that joins it.
type cluster struct{ bin, dataDir string }

// The nodes, in the world's network.
const (
	server, serverAddr = "node-1", "198.51.100.11"
	agent, agentAddr   = "node-2", "198.51.100.12"
	apiPort            = "6443"
	// nodes is how many there are.
	nodes = 2
)

func (c *cluster) dir(node string) string { return filepath.Join(c.dataDir, node) }
func (c *cluster) kubeconfig() string     { return filepath.Join(c.dataDir, "kubeconfig") }
func (c *cluster) kubectl() string        { return filepath.Join(c.bin, "libexec", "kubectl") }

// world is the process of the run with -keep that the cluster's world belongs to, or 0. The file outlives it: what the number stands
// for must be such a process.
func (c *cluster) world() int {
	b, err := os.ReadFile(c.worldFile())
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !strings.Contains(string(environ), envInside+"=") {
		return 0
	}
	return pid
}

func (c *cluster) worldFile() string { return filepath.Join(c.dataDir, "world") }

// up starts the cluster, imports the images on both nodes and waits until both are Ready.
func (c *cluster) up(ctx context.Context, images []string) error {
	if err := os.MkdirAll(c.dataDir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(c.worldFile(), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	if err := c.startServer(ctx); err != nil {
		return err
	}
	var token bytes.Buffer
	cmd := c.command(ctx, "token", "create", "--data-dir", c.dataDir)
	cmd.Stdout, cmd.Stderr = &token, nil // it says on standard error how to use it
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("knarr token create: %w", err)
	}
	ended, err := c.startAgent(strings.TrimSpace(token.String()))
	if err != nil {
		return err
	}
	if err := c.waitReady(ctx, ended); err != nil {
		return err
	}
	for _, node := range []string{server, agent} {
		cmd := c.command(ctx, append([]string{"image", "import", "--data-dir", c.dir(node)}, images...)...)
		cmd.Stdout = nil
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("importing images on %s: %w", node, err)
		}
	}
	return nil
}

func (c *cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "knarr"), args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd
}

func (c *cluster) startServer(ctx context.Context) error {
	if err := mirror(c.dir(server)); err != nil {
		return err
	}
	cmd, err := startInNode(ctx, server, serverAddr, os.Stderr, filepath.Join(c.bin, "knarr"), "up", "--data-dir", c.dir(server), "--",
		"--node-name", server, "--listen", "0.0.0.0:"+apiPort, "--upstream-dns", worldAddr)
	if err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("knarr up: %w", err)
	}
	// Where the server is, the administrator reaches it on loopback.
	kubeconfig, err := os.ReadFile(filepath.Join(c.dir(server), "kubeconfig"))
	if err != nil {
		return err
	}
	return os.WriteFile(c.kubeconfig(), bytes.Replace(kubeconfig, []byte("127.0.0.1"), []byte(serverAddr), 1), 0o600)
}

// startAgent starts the second node. The channel tells if it ends.
func (c *cluster) startAgent(token string) (<-chan error, error) {
	if err := mirror(c.dir(agent)); err != nil {
		return nil, err
	}
	log, err := os.Create(c.agentLog())
	if err != nil {
		return nil, err
	}
	defer log.Close() // the agent has its own
	// Not bound to the run's context: the tests clean up after an interruption, and knarr down ends it.
	cmd, err := startInNode(context.Background(), agent, agentAddr, log, filepath.Join(c.bin, "knarr"), "agent", "--data-dir", c.dir(agent),
		"--node-name", agent, "--server", "https://"+serverAddr+":"+apiPort, "--token", token, "--upstream-dns", worldAddr)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // until knarr down
	return ended, nil
}

func (c *cluster) agentLog() string { return filepath.Join(c.dir(agent), "knarr.log") }

// waitReady waits until both nodes are Ready.
func (c *cluster) waitReady(ctx context.Context, agentEnded <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		out, err := exec.CommandContext(ctx, c.kubectl(), "--kubeconfig", c.kubeconfig(), "wait", "--for=condition=Ready", "--timeout=10s",
			"node/"+server, "node/"+agent).CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case err := <-agentEnded:
			log, _ := os.ReadFile(c.agentLog())
			return fmt.Errorf("knarr agent ended: %v\n%s", err, log)
		case <-ctx.Done():
			return fmt.Errorf("the nodes did not become ready: %w\n%s", err, out)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// down ends the cluster, also one that a run which was killed has left. It is not tied to the run's context: it has to be done when
// that was cancelled, too.
func (c *cluster) down() error {
	c.endSuite()
	var errs []error
	for _, node := range []string{agent, server} {
		if _, err := os.Stat(c.dir(node)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		// By force: there are no other servers that the one could leave, and from here it cannot be asked.
		out, err := exec.Command(filepath.Join(c.bin, "knarr"), "down", "--delete-data", "--force", "--data-dir", c.dir(node)).CombinedOutput()
		if err != nil {
			errs = append(errs, fmt.Errorf("knarr down on %s: %w\n%s", node, err, out))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(c.dataDir)
}

// endSuite kills what a run that was killed has left of the suite: its processes name the cluster's kubeconfig.
func (c *cluster) endSuite() {
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return // the pattern is right
	}
	for _, path := range found {
		cmdline, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(cmdline, []byte("\x00--kubeconfig="+c.kubeconfig()+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // or it has ended by itself
		}
	}
}

// buildImages assembles the images below dir that are older than what describes them, and returns the archives.
func buildImages(ctx context.Context, bin, dir string) ([]string, error) {
	specs, err := filepath.Glob(filepath.Join(dir, "*", "image.yaml"))
	if err != nil {
		return nil, err
	}
	var archives []string
	for _, spec := range specs {
		folder := filepath.Dir(spec)
		archive := filepath.Join(bin, "conformance", filepath.Base(folder)+".tar")
		archives = append(archives, archive)
		if newer(archive, spec, filepath.Join(dir, "applets"), filepath.Join(bin, "conformance", "agnhost")) {
			continue
		}
		fmt.Fprintln(os.Stderr, "building image", filepath.Base(folder))
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "knarr"), "image", "build", folder, "-o", archive)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("image %s: %w", filepath.Base(folder), err)
		}
	}
	return archives, nil
}

// newer tells whether a file is there and newer than all it is made from.
func newer(file string, from ...string) bool {
	made, err := os.Stat(file)
	if err != nil {
		return false
	}
	for _, f := range from {
		if fi, err := os.Stat(f); err != nil || fi.ModTime().After(made.ModTime()) {
			return false
		}
	}
	return true
}
