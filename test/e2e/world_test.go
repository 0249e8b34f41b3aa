package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The world of the tests: the process is in a network namespace with one link, eth0, to another one that stands for all other
// machines.
const (
	machineAddr = "203.0.113.10" // of the machine that has the cluster (RFC 5737 addresses)
	outsideAddr = "203.0.113.1"  // of the world outside, the machine's gateway and DNS server
)

// outsideNS is the network namespace of the world outside; none if the cluster was started elsewhere (KNARR_E2E_CLUSTER).
var outsideNS netns.NsHandle = -1

// makeWorld sets up links and addresses.
func makeWorld() error {
	if err := sh("ip link set lo up"); err != nil {
		return err
	}
	// As on a machine that never forwarded; a new namespace has what the machine has.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		return err
	}
	fd, err := newNamespace()
	if err != nil {
		return err
	}
	outsideNS = fd
	// The thread that starts ip is in the machine's namespace; it finds the other one by this process's open file.
	other := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(fd))
	return sh("ip link add eth0 type veth peer name eth0 netns "+other,
		"ip addr add "+machineAddr+"/24 dev eth0",
		"ip link set eth0 up",
		"nsenter --net="+other+" ip link set lo up",
		"nsenter --net="+other+" ip addr add "+outsideAddr+"/24 dev eth0",
		"nsenter --net="+other+" ip link set eth0 up",
		"ip route add default via "+outsideAddr)
}

// enterWorld makes use of the world outside that another process made, if path is not empty.
func enterWorld(path string) (err error) {
	if path != "" {
		outsideNS, err = netns.GetFromPath(path)
	}
	return err
}

func newNamespace() (netns.NsHandle, error) {
	type result struct {
		fd  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			done <- result{-1, err}
			return
		}
		fd, err := netns.Get()
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
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

// outside runs f as another machine would; sockets must be opened by f itself, not by goroutines it starts.
func outside(t testing.TB, f func()) {
	t.Helper()
	if outsideNS < 0 {
		t.Skip("the cluster that KNARR_E2E_CLUSTER names has no world outside")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(outsideNS)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("entering the world outside: %v", err)
	}
}

// fetchFromOutside is fetch from another machine.
func fetchFromOutside(t testing.TB, url string) (body string, err error) {
	t.Helper()
	host := strings.TrimPrefix(url, "http://")
	host, _, _ = strings.Cut(host, "/")
	var conn net.Conn
	outside(t, func() { conn, err = net.DialTimeout("tcp4", host, 5*time.Second) })
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		Dial: func(string, string) (net.Conn, error) { return conn, nil }}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, b)
	}
	return string(b), err
}

// serverPID is the process of the cluster's server, or 0.
func serverPID() int {
	b, err := os.ReadFile(cluster.dataDir + "/knarr.pid")
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}
