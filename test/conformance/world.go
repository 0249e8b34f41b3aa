package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The world of the tests is a network namespace, in which the runner and the suite are, with a bridge that is the link to the nodes,
// each in a network namespace of its own. Nothing in it can collide with the machine or reach beyond it, and it goes with its
// processes. RFC 5737 keeps these addresses free.
const (
	bridge    = "world"
	worldAddr = "198.51.100.1" // of the runner: the nodes' gateway
)

// Environment of the processes in the world.
const (
	envInside = "KNARR_CONFORMANCE_INSIDE" // the process is in the world already
	envNode   = "KNARR_CONFORMANCE_NODE"   // the process becomes a node with this address
)

// enterWorld starts this program anew in a network namespace of its own, or in that of process pid.
func enterWorld(pid int) error {
	runtime.LockOSThread() // until exec, which this thread survives
	if pid == 0 {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace (the suite needs root): %w", err)
		}
		if err := sh("ip link set lo up", "ip link add "+bridge+" type bridge", "ip addr add "+worldAddr+"/24 dev "+bridge, "ip link set "+bridge+" up"); err != nil {
			return err
		}
	} else if err := enterNamespace(pid); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), envInside+"=1"))
}

func enterNamespace(pid int) error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the network namespace of process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the network namespace of process %d: %w", pid, err)
	}
	return nil
}

// startInNode starts a command in a new network namespace with a link to the world. The link has the name of the node.
func startInNode(ctx context.Context, name, addr string, log *os.File, command ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, command...)
	cmd.Env = append(os.Environ(), envNode+"="+addr)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: Ctrl-C is for the suite, which needs the node to clean up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setsid: true}
	linked, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting node %s: %w", name, err)
	}
	err = sh(fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", name, cmd.Process.Pid), "ip link set "+name+" master "+bridge+" up")
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		return nil, err
	}
	return cmd, linked.Close()
}

// becomeNode is the rest of startInNode, in the new namespace: it waits for the link and becomes the command.
func becomeNode(addr string) error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		return fmt.Errorf("unexpected input")
	}
	// The namespace begins with the settings of the machine's; a machine of its own forwards nothing until it is told to.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		return err
	}
	if err := sh("ip link set lo up", "ip addr add "+addr+"/24 dev eth0", "ip link set eth0 up", "ip route add default via "+worldAddr); err != nil {
		return err
	}
	if err := os.Unsetenv(envNode); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", os.Args[1], syscall.Exec(os.Args[1], os.Args[1:], os.Environ()))
}

func sh(lines ...string) error {
	for _, line := range lines {
		f := strings.Fields(line)
		if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", line, err, out)
		}
	}
	return nil
}
