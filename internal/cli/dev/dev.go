// Package dev is knarr dev: a cluster of several nodes on one machine, to try things out and for the tests. Each node is a process of
// its own with its own runtime, data directory, control groups and network namespace, as if it were a machine of its own.
//
// What flows through it: a command says what there shall be, [Settings] keep that below the cluster's directory, a [layout] derives
// every name and address from the two; what is missing is made. A node is knarr server or knarr agent, run in its namespace; the
// other commands of knarr do what is to be done in a node. The nodes' links meet in a bridge that has a network namespace to
// itself, out of reach of the machine's firewall; one more link leads from there to the machine.
//
// What must stay true: doing a thing again is harmless; nothing has to be written down to be found again, but for what is in the
// settings; on the machine there are one link, one nftables table and the setting that lets packets pass, all removed by down, and
// control groups, mounts and processes, removed by each node's knarr down. Tests: TestNodesAreAddedAndKeepTheirRoles,
// TestDownFindsNodesWithoutSettings, TestMachinesJoinAndLeave (test/e2e).
package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/cluster"
)

// DefaultDir is where knarr dev keeps its nodes unless told otherwise.
const DefaultDir = "/var/lib/knarr-dev"

// Command is knarr dev.
func Command() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a cluster of several nodes on this machine, and make its nodes fail",
		Long: `Run a cluster of several nodes on this machine: each node has its own runtime, data directory and network namespace, as if
it were a machine of its own. It is meant for trying things out; what makes nodes fail is part of it.

  knarr dev up --nodes 3     start three nodes: a server and two agents
  knarr dev ps               show them
  knarr dev cut node-2       take a node off the network; heal puts it back
  knarr dev down             stop everything and remove every trace, but for the data`,
	}
	cmd.PersistentFlags().StringVar(&dir, "data-dir", fromEnv(), "directory of the whole cluster; a node's is below it (default from $KNARR_DEV_DIR)")
	cmd.PersistentFlags().Lookup("data-dir").DefValue = DefaultDir
	cmd.AddCommand(upCommand(&dir), downCommand(&dir), psCommand(&dir), imageCommand(&dir))
	cmd.AddCommand(nodeCommands(&dir)...)
	return cmd
}

func fromEnv() string {
	if d := os.Getenv("KNARR_DEV_DIR"); d != "" {
		return d
	}
	return DefaultDir
}

// Cluster is a cluster of nodes on this machine, as a command works on it.
type Cluster struct {
	layout
	Settings
	self string // the knarr executable
	lock *os.File
}

// open locks the cluster of a directory and reads its settings, which are zero if it has none. A command that changes the whole cluster
// is alone; those on single nodes may run at the same time.
func open(dir string, alone bool) (*Cluster, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces and containers need root: run knarr dev as root (sudo)")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{layout: newLayout(dir)}
	if c.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("finding knarr's own executable: %w", err)
	}
	for _, theirs := range []string{"etcd", "agent", "containerd"} {
		if _, err := os.Stat(filepath.Join(dir, theirs)); err == nil {
			return nil, fmt.Errorf("%s is the data directory of a single node: give knarr dev another --data-dir", dir)
		}
	}
	if pid := cluster.RunningServer(dir); pid != 0 {
		return nil, fmt.Errorf("%s is the data directory of knarr process %d: give knarr dev another --data-dir", dir, pid)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	if c.lock, err = os.OpenFile(filepath.Join(dir, "dev.lock"), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	how := unix.LOCK_SH
	if alone {
		how = unix.LOCK_EX
	}
	for {
		// It waits for other commands; an interrupt ends the program, for nothing has been done yet.
		if err = unix.Flock(int(c.lock.Fd()), how); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		c.Settings, err = readSettings(c.settingsFile())
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// existing is open for commands that need a cluster to be there.
func existing(dir string, alone bool) (*Cluster, error) {
	if _, err := os.Stat(filepath.Join(dir, settingsName)); err != nil {
		return nil, fmt.Errorf("there is no cluster of knarr dev in %s: `knarr dev up` starts one (--data-dir or KNARR_DEV_DIR name another)", dir)
	}
	return open(dir, alone)
}

func (c *Cluster) close() { _ = c.lock.Close() } // the kernel drops the lock with the file

// knarr is this executable with other arguments.
func (c *Cluster) knarr(args ...string) *exec.Cmd { return exec.Command(c.self, args...) }

// node finds a node by its name.
func (c *Cluster) node(name string) (Node, error) {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("there is no node %q: knarr dev ps lists them", name)
}
