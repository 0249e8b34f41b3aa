package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestParseMount(t *testing.T) {
	for _, test := range []struct {
		line string
		want mountPoint
		ok   bool
	}{
		{"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue", mountPoint{"/mnt2", "ext3"}, true},
		{"36 35 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", mountPoint{"/sys/fs/cgroup/memory", "cgroup"}, true},
		{`1 2 0:3 / /data/with\040blank\134 rw shared:1 master:2 - tmpfs tmpfs rw`, mountPoint{`/data/with blank\`, "tmpfs"}, true},
		{"1 2 0:3 / /data rw", mountPoint{}, false},
		{"", mountPoint{}, false},
		{" - ", mountPoint{}, false},
	} {
		if got, ok := parseMount(test.line); got != test.want || ok != test.ok {
			t.Errorf("%q: %v, %v; want %v, %v", test.line, got, ok, test.want, test.ok)
		}
	}
}

func TestRuncStates(t *testing.T) {
	dir := t.TempDir()
	write := func(id, content string) {
		p := filepath.Join(runcRoot(dir), "k8s.io", id)
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p, "state.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := runcStates(dir); len(s) > 0 || err != nil {
		t.Errorf("nothing there: %v, %v", s, err)
	}
	write("a", `{"id":"a","init_process_pid":12,"init_process_start":34,"cgroup_paths":{"memory":"/sys/fs/cgroup/memory/knarr/a"},"more":1}`)
	s, err := runcStates(dir)
	if err != nil || len(s) != 1 || s[0].ID != "a" || s[0].PID != 12 || s[0].StartTicks != 34 || s[0].CgroupPaths["memory"] != "/sys/fs/cgroup/memory/knarr/a" {
		t.Errorf("%+v, %v", s, err)
	}
	write("b", `{`)
	if s, err := runcStates(dir); len(s) != 1 || err == nil {
		t.Errorf("with a broken file: %+v, %v; want the other one, and an error", s, err)
	}
}

func TestKillMatchingWaits(t *testing.T) {
	cmd := exec.Command("sleep", "1000000")
	cmd.Args[0] = "knarr-test-" + t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ticks, err := startTicks(cmd.Process.Pid)
	if err != nil || ticks == 0 {
		t.Errorf("start of a live process: %d, %v", ticks, err)
	}
	// Start returns at execve(2), a moment before the kernel shows the new arguments.
	for argv, deadline := "", time.Now().Add(5*time.Second); argv == "" && time.Now().Before(deadline); {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		argv = string(b)
	}
	if err := killMatching(context.Background(), func(argv []string) bool { return argv[0] == cmd.Args[0] }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("the process lives")
	}
	if _, err := startTicks(cmd.Process.Pid); err == nil {
		t.Error("the process is there after killMatching")
	}
}

// TestPurgeOfNothing: purging a directory in which nothing ever ran is no error, and leaves other cgroups alone.
func TestPurgeOfNothing(t *testing.T) {
	if err := Purge(context.Background(), t.TempDir(), "/knarr-test-none"); err != nil {
		t.Error(err)
	}
}

func TestUnpack(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "bin")
	put := func(name, content string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(from, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := Unpack(from, to); err == nil {
		t.Error("no runc, no error")
	}
	put("runc", "one", 0o755)
	put("containerd-shim-runc-v2", "shim", 0o755)
	put("knarr-cni", "cni", 0o755)
	put("kubectl", "big", 0o755)
	put("README", "text", 0o644)
	if err := Unpack(from, to); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(to, name))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 3 || read("runc") != "one" || read("knarr-cni") != "cni" {
		t.Errorf("unpacked: %v, %v", entries, err)
	}
	// What has not changed is left alone: a copy that was tampered with, with the same size and time, shows it.
	fi, err := os.Stat(filepath.Join(to, "runc"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "runc"), []byte("two"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(to, "runc"), fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(from, to); err != nil || read("runc") != "two" {
		t.Errorf("an unchanged executable was copied again: %q, %v", read("runc"), err)
	}
	put("runc", "three", 0o755)
	if err := Unpack(from, to); err != nil || read("runc") != "three" {
		t.Errorf("a new executable was not copied: %q, %v", read("runc"), err)
	}
}
