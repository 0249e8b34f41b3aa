package nettest

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// isolated tells a test process that it is the child of Isolate.
const isolated = "KNARR_NETTEST_ISOLATED"

// Isolate runs the calling test again in a process that has a network namespace of its own from its first thread on: for code
// under test that opens sockets in goroutines. It returns true in that process, with loopback up, and false in the one that
// started it, which has nothing left to do:
//
//	if !nettest.Isolate(t) {
//		return
//	}
func Isolate(t *testing.T) bool {
	t.Helper()
	if os.Getenv(isolated) != "" {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			t.Fatalf("loopback: %v", err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces, links and nftables rules")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in its own network namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}
