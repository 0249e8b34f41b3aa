// Package e2e tests a whole cluster from outside, as its users see it: the shipped kubectl, real containers, real links and
// rules. It needs root and KNARR_E2E=1; `make e2e` runs it.
//
// What flows through it: TestMain builds the images and runs itself again in a network namespace of its own (see world), so that
// neither a cluster on this machine nor its firewall matter. There it starts one cluster in a data directory of its
// own; every test works in a namespace of its own; tests that break the cluster get another one (see ownCluster). At the end each
// cluster is taken down and the machine compared with how it was. What must stay true: no test depends on
// another; waiting is for a condition, with the last state shown on time-out.
//
// Tests of several nodes have a cluster of knarr dev in such a network namespace (see devCluster in multi_test.go). They mostly wait, so
// that they run at the same time as others.
//
// To try tests again quickly: with KNARR_E2E_KEEP=1 the cluster stays until the program is interrupted, and what it prints then
// uses that cluster.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster is the one that all tests share.
var cluster struct {
	bin     string // the knarr executable
	dataDir string
	images  string       // directory of the archives that were imported
	base    machineState // before the cluster was started
}

// Environment of the processes that TestMain and ownCluster start.
const (
	envStage  = "KNARR_E2E_STAGE"   // stageShared or stageOwn
	envDir    = "KNARR_E2E_DATADIR" // the data directory to use
	envImages = "KNARR_E2E_IMAGES"  // the directory of archives to import

	stageShared = "shared" // in a network namespace, with the cluster of most tests
	stageOwn    = "own"    // the same for one test alone
	stageDev    = "dev"    // for one test alone, which starts a cluster of several nodes by itself (devCluster)
)

// serverArgs are the flags that the clusters of the tests have.
var serverArgs = []string{"--listen", "0.0.0.0:16443", "--upstream-dns", outsideAddr}

func TestMain(m *testing.M) {
	if os.Getenv("KNARR_E2E") == "" {
		fmt.Println("end-to-end tests skipped: they start a cluster and need root; set KNARR_E2E=1 (make e2e)")
		os.Exit(0)
	}
	if os.Getenv(envStage) == stageDriver {
		fmt.Fprintln(os.Stderr, "the driver ended:", runDriver())
		os.Exit(1)
	}
	code, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func runAll(m *testing.M) (int, error) {
	if cluster.bin = os.Getenv("KNARR_BIN"); cluster.bin == "" {
		return 1, errors.New("KNARR_BIN must name the knarr executable (make e2e sets it)")
	}
	cluster.images = os.Getenv(envImages)
	if os.Getenv(envStage) != "" {
		return runTests(m)
	}
	if cluster.images == "" {
		dir, err := buildImages()
		defer os.RemoveAll(dir)
		if err != nil {
			return 1, err
		}
		cluster.images = dir
	}
	if cluster.dataDir = os.Getenv("KNARR_E2E_CLUSTER"); cluster.dataDir != "" {
		if err := enterWorld(os.Getenv("KNARR_E2E_OUTSIDE")); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	again := isolated(stageShared, os.Args[1:]...)
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	return 0, runIsolated(again)
}

// isolated is this program once more, in a network namespace of its own and for a cluster of its own.
func isolated(stage string, args ...string) *exec.Cmd {
	cmd := exec.Command(executable(), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), envStage+"="+stage, envImages+"="+cluster.images)
	return cmd
}

func executable() string {
	exe, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return exe
}

// runIsolated gives cmd a data directory and runs it. If it was killed, its cluster is taken down here.
func runIsolated(cmd *exec.Cmd) error {
	// Long enough that sockets need a place of their own, see maxShimSockets in internal/node/containerd.
	dataDir, err := os.MkdirTemp("/var/lib", "knarr-e2e-long-name-")
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, envDir+"="+dataDir)
	err = cmd.Run()
	if _, statErr := os.Stat(dataDir); statErr == nil {
		down := []string{"down", "--data-dir", dataDir, "--delete-data"}
		if slices.Contains(cmd.Env, envStage+"="+stageDev) {
			down = append([]string{"dev"}, down...)
		}
		out, downErr := exec.Command(cluster.bin, down...).CombinedOutput()
		err = errors.Join(err, fmt.Errorf("the tests did not take their cluster down; knarr down now: %v\n%s", downErr, out))
	}
	return err
}

// runTests is the life of a process that isolated started.
func runTests(m *testing.M) (code int, err error) {
	cluster.dataDir = os.Getenv(envDir)
	if err := makeWorld(); err != nil {
		return 1, fmt.Errorf("setting up the network of the tests: %w", err)
	}
	if cluster.base, err = observeMachine(); err != nil {
		return 1, err
	}
	if os.Getenv(envStage) == stageDev {
		return m.Run(), nil
	}
	defer func() {
		if os.Getenv("KNARR_E2E_KEEP") != "" {
			keep()
		}
		if downErr := takeDown(machineState.marks, "down", "--delete-data"); downErr != nil {
			code, err = max(code, 1), errors.Join(err, downErr)
		}
	}()
	if err := startCluster(); err != nil {
		return 1, err
	}
	if err := importImages(); err != nil {
		return 1, err
	}
	if err := runMoreAtATime(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// runMoreAtATime lets more tests run at a time than there are processors, unless -parallel was given: those of several nodes mostly wait.
func runMoreAtATime() error {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given || os.Getenv(envStage) != stageShared {
		return nil
	}
	return flag.Set("test.parallel", strconv.Itoa(runtime.GOMAXPROCS(0)+2))
}

// keep waits until the program is interrupted.
func keep() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("the cluster stays until process %d is interrupted; to use it, begin a command with\n"+
		"nsenter --net=/proc/%[1]d/ns/net env KNARR_E2E_CLUSTER=%[2]s KNARR_E2E_OUTSIDE=/proc/%[1]d/fd/%[3]d %[4]s=%[5]s\n",
		os.Getpid(), cluster.dataDir, int(outsideNS), envImages, cluster.images)
	<-ctx.Done()
}

// ownCluster runs the calling test once more, alone in another network namespace with a cluster that it may break. It returns
// true there, and false where there is nothing left to do:
//
//	if !ownCluster(t) {
//		return
//	}
func ownCluster(t *testing.T) bool {
	t.Helper()
	if os.Getenv(envStage) == stageOwn {
		return true
	}
	runAlone(t, stageOwn, "5m")
	return false
}

// runAlone runs the calling test once more, in another network namespace.
func runAlone(t *testing.T, stage, timeout string) {
	t.Helper()
	var out strings.Builder
	cmd := isolated(stage, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v", "-test.timeout="+timeout)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := runIsolated(cmd); err != nil {
		t.Errorf("with a cluster of its own: %v", err)
	}
	t.Logf("\n%s", out.String())
}

func knarr(args ...string) (string, error) {
	out, err := exec.Command(cluster.bin, append(args, "--data-dir", cluster.dataDir)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("knarr %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func startCluster() error {
	out, err := exec.Command(cluster.bin, append([]string{"up", "--data-dir", cluster.dataDir, "--"}, serverArgs...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("knarr up: %w\n%s", err, out)
	}
	fmt.Print(string(out))
	return nil
}

// ballast is what is still running when a cluster is taken down.
const ballast = `
apiVersion: v1
kind: Pod
metadata: {name: ballast, namespace: default}
spec:
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command: [sleep, "86400"]
    ports: [{containerPort: 1, hostPort: 9}]
    volumeMounts: [{name: memory, mountPath: /memory}]
  volumes:
  - name: memory
    emptyDir: {medium: Memory}
`

// loadBallast puts ballast into the cluster.
func loadBallast() error {
	_, err := run(ballast, "apply", "-f", "-")
	if err == nil {
		_, err = run("", "wait", "pod/ballast", "--for=condition=Ready", "--timeout=60s")
	}
	return err
}

// takeDown removes the cluster, with pods in it, by a command, and reports what that left on the machine.
func takeDown(marksOf func(machineState) []string, down ...string) error {
	if err := loadBallast(); err != nil {
		log, _ := exec.Command("tail", "-n", "100", cluster.dataDir+"/knarr.log").CombinedOutput()
		_, downErr := knarr(down...)
		return errors.Join(fmt.Errorf("the cluster does not work any more: %w\nthe end of its log:\n%s", err, log), downErr)
	}
	running, err := observeMachine()
	if err != nil {
		return err
	}
	marks := marksOf(running)
	if unseen := cluster.base.unseen(running, marks); len(unseen) > 0 {
		return fmt.Errorf("a running cluster should show in every kind of trace, but does not in: %s", strings.Join(unseen, ", "))
	}
	return removeAll(marks, down...)
}

// removeAll takes the cluster down by a command and reports what that left of what has marks.
func removeAll(marks []string, down ...string) error {
	if _, err := knarr(down...); err != nil {
		return err
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		now, err := observeMachine()
		if err != nil {
			return err
		}
		left := cluster.base.differences(now, marks)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("knarr down left traces on the machine:\n  %s", strings.Join(left, "\n  "))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// buildImages builds the images that the tests use into a directory.
func buildImages() (string, error) {
	root, err := repositoryRoot()
	if err != nil {
		return "", err
	}
	out, err := os.MkdirTemp("", "knarr-e2e-images-")
	if err != nil {
		return "", err
	}
	var specs []string
	for _, dir := range []string{"test/e2e/images", "examples/guestbook/images"} {
		found, err := filepath.Glob(filepath.Join(root, dir, "*", "image.yaml"))
		if err != nil || len(found) == 0 {
			return out, fmt.Errorf("no images found in %s: %v", dir, err)
		}
		specs = append(specs, found...)
	}
	for i, spec := range specs {
		dir := filepath.Dir(spec)
		tar := filepath.Join(out, fmt.Sprintf("%d-%s.tar", i, filepath.Base(dir)))
		if msg, err := exec.Command(cluster.bin, "image", "build", dir, "-o", tar).CombinedOutput(); err != nil {
			return out, fmt.Errorf("building %s: %w\n%s", dir, err, msg)
		}
	}
	return out, nil
}

func importImages() error {
	archives, err := filepath.Glob(filepath.Join(cluster.images, "*.tar"))
	if err != nil || len(archives) == 0 {
		return fmt.Errorf("no images to import in %s: %v", cluster.images, err)
	}
	for _, tar := range archives {
		if _, err := knarr("image", "import", tar); err != nil {
			return err
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
	return "", errors.New("no go.mod above the test's directory")
}
