package dev

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/cluster"
)

// endWait is how long a node's process may take to end.
const endWait = 20 * time.Second

// run starts a node's process in its network namespace. The token is for nodes that are to join.
func (c *Cluster) run(n Node, token string) (ended <-chan error, err error) {
	args := c.args(n, token != "")
	var env []string
	if token != "" {
		env = []string{"KNARR_TOKEN=" + token} // others can see a command line
	}
	err = inNamespace(c.namespace(n.Name), func() error {
		ended, err = cli.Background(c.logFile(n), env, args...)
		return err
	})
	return ended, err
}

// args are the arguments of a node's process.
func (c *Cluster) args(n Node, join bool) []string {
	args := []string{"agent"}
	if n.Server {
		args = []string{"server", "--listen", strings.TrimPrefix(c.URL(n), "https://")}
	}
	args = append(args, "--data-dir", c.nodeDir(n), "--node-name", n.Name, "--node-ip", c.Address(n).String())
	if up := c.upstreams(); len(up) > 0 {
		args = append(args, "--upstream-dns", strings.Join(up, ","))
	}
	if n.Server {
		if c.Overlay != "" {
			args = append(args, "--overlay", c.Overlay)
		}
		args = append(args, c.ServerArgs...)
	}
	if join {
		flag := "--server"
		if n.Server {
			flag = "--join"
		}
		args = append(args, flag, c.URL(c.joinAt(n)))
	}
	return args
}

// joinAt is the server at which a node joins: one that runs, if any.
func (c *Cluster) joinAt(n Node) Node {
	for _, s := range c.servers() {
		if s != n && c.joined(s) && cluster.RunningServer(c.nodeDir(s)) != 0 {
			return s
		}
	}
	return c.servers()[0]
}

// token makes a token for machines that join within the hour.
func (c *Cluster) token(ctx context.Context, server bool) (string, error) {
	a, err := c.api(ctx)
	if err != nil {
		return "", err
	}
	cmd := c.knarr("token", "create", "--ttl", "1h", "--description", "knarr dev", "--data-dir", c.nodeDir(a.node))
	if server {
		cmd.Args = append(cmd.Args, "--server")
	}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("making a token: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// end ends a node's process; its containers run on. Killed, it has no time to tell anybody.
func (c *Cluster) end(n Node, kill bool) error {
	pid := cluster.RunningServer(c.nodeDir(n))
	if pid == 0 {
		return nil
	}
	signal := syscall.SIGTERM
	if kill {
		signal = syscall.SIGKILL
	}
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending %s (process %d): %w", n.Name, pid, err)
	}
	for deadline := time.Now().Add(endWait); cluster.RunningServer(c.nodeDir(n)) == pid; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s (process %d) has not ended within %v", n.Name, pid, endWait)
		}
	}
	return nil
}

// purge removes everything that a node has on the machine but its files; those of its network go with its network namespace.
func (c *Cluster) purge(n Node) error {
	down := func() error {
		out, err := c.knarr("down", "--data-dir", c.nodeDir(n)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", n.Name, err, out)
		}
		return nil
	}
	if path := c.namespace(n.Name); isNamespace(path) {
		return inNamespace(path, down)
	}
	return down()
}
