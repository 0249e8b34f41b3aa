package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/knarr-io/knarr/internal/cluster"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"knarr": main})
}

// TestScripts runs the command line as people type it: testdata/script, one file for a subject. $ADDR is a free address of the loopback
// interface for an API; stop DIR ends the server of a data directory as a service manager does.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Setenv("ADDR", l.Addr().String())
			env.Setenv("KNARR_DATA_DIR", filepath.Join(env.WorkDir, "data"))
			env.Setenv("KUBECONFIG", "")
			dir := env.WorkDir
			env.Defer(func() { _ = stopServer(filepath.Join(dir, "data")); _ = stopServer(filepath.Join(dir, "restored")) })
			return l.Close()
		},
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"stop": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(stopServer(ts.MkAbs(args[0]))) },
		},
	})
}

// stopServer asks the server of dataDir to stop and waits until it has.
func stopServer(dataDir string) error {
	pid := cluster.RunningServer(dataDir)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	for range 600 {
		if cluster.RunningServer(dataDir) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond) // another process: there is nothing to wait on
	}
	return os.NewSyscallError("waiting for process "+strconv.Itoa(pid), syscall.ETIMEDOUT)
}
