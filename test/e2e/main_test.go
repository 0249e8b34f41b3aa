// Package e2e tests a whole cluster from outside, as its users see it: the shipped kubectl, real containers, real links and
// rules. It needs root and KNARR_E2E=1; `make e2e` runs it.
//
// What flows through it: TestMain starts one cluster in a data directory of its own, every test works in a namespace of its
// own, and at the end the cluster is taken down and the machine compared with how it was. What must stay true: no test
// depends on another; waiting is for a condition, with the last state shown on time-out.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cluster is the one that all tests share.
var cluster struct {
	bin     string // the knarr executable
	dataDir string
	listen  string
	base    machineState // before the cluster was started
}

func TestMain(m *testing.M) {
	if os.Getenv("KNARR_E2E") == "" {
		fmt.Println("end-to-end tests skipped: they start a cluster and need root; set KNARR_E2E=1 (make e2e)")
		os.Exit(0)
	}
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runAll(m *testing.M) (code int, err error) {
	cluster.bin = os.Getenv("KNARR_BIN")
	if cluster.bin == "" {
		return 1, fmt.Errorf("KNARR_BIN must name the knarr executable (make e2e sets it)")
	}
	if cluster.dataDir = os.Getenv("KNARR_E2E_CLUSTER"); cluster.dataDir != "" {
		return m.Run(), nil // one that KNARR_E2E_KEEP left, to try a test again quickly
	}
	if cluster.base, err = observeMachine(); err != nil {
		return 1, err
	}
	if cluster.dataDir, err = os.MkdirTemp("/var/lib", "knarr-e2e-"); err != nil {
		return 1, err
	}
	cluster.listen = "127.0.0.1:16443"
	defer func() {
		if os.Getenv("KNARR_E2E_KEEP") != "" {
			fmt.Println("kept the cluster in", cluster.dataDir)
			return
		}
		if downErr := takeDown(); downErr != nil && err == nil {
			code, err = 1, downErr
		}
	}()
	if err := startCluster(); err != nil {
		return 1, err
	}
	if err := importImages(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func startCluster() error {
	out, err := exec.Command(cluster.bin, "up", "--data-dir", cluster.dataDir, "--", "--listen", "0.0.0.0:16443").CombinedOutput()
	if err != nil {
		return fmt.Errorf("knarr up: %w\n%s", err, out)
	}
	fmt.Print(string(out))
	return nil
}

// takeDown removes the cluster and reports what it left on the machine.
func takeDown() error {
	out, err := exec.Command(cluster.bin, "down", "--data-dir", cluster.dataDir, "--delete-data").CombinedOutput()
	if err != nil {
		return fmt.Errorf("knarr down: %w\n%s", err, out)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		now, err := observeMachine()
		if err != nil {
			return err
		}
		left := cluster.base.added(now)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("knarr down left traces on the machine:\n  %s", strings.Join(left, "\n  "))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// importImages builds and imports the images that the tests use.
func importImages() error {
	root, err := repositoryRoot()
	if err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(root, "test", "e2e", "images", "*", "image.yaml"))
	if err != nil || len(dirs) == 0 {
		return fmt.Errorf("no images for the tests found below %s: %v", root, err)
	}
	for _, spec := range dirs {
		dir := filepath.Dir(spec)
		tar := filepath.Join(cluster.dataDir, filepath.Base(dir)+".tar")
		if out, err := exec.Command(cluster.bin, "image", "build", dir, "-o", tar).CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", dir, err, out)
		}
		if out, err := exec.Command(cluster.bin, "image", "import", "--data-dir", cluster.dataDir, tar).CombinedOutput(); err != nil {
			return fmt.Errorf("importing %s: %w\n%s", tar, err, out)
		}
	}
	return nil
}

func repositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no go.mod above the test's directory")
}
