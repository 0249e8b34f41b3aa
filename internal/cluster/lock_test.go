package cluster

import (
	"os"
	"testing"
)

func TestOneServerPerDataDirectory(t *testing.T) {
	dir := t.TempDir()
	if pid := RunningServer(dir); pid != 0 {
		t.Errorf("process %d is said to run before any did", pid)
	}
	l, err := TakeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TakeLock(dir); err == nil {
		t.Error("a second lock was given")
	}
	if RunningServer(dir) == 0 || !RunsNode(dir) {
		t.Error("the running server, or its node, is not seen")
	}
	for _, node := range []bool{false, true, true} {
		if err := l.SetNode(node); err != nil {
			t.Fatal(err)
		}
		if RunningServer(dir) != os.Getpid() || RunsNode(dir) != node {
			t.Errorf("process %d is said to run, its node: %v, want %v", RunningServer(dir), RunsNode(dir), node)
		}
	}
	l.Release()
	if pid := RunningServer(dir); pid != 0 {
		t.Errorf("process %d is said to run after it let go", pid)
	}
}

func TestNamesOfADataDirectory(t *testing.T) {
	if i := Instance(DefaultDataDir + "/"); i != "" || CgroupRoot(i) != "/knarr" {
		t.Errorf("the default directory's instance is %q with control groups below %s", i, CgroupRoot(i))
	}
	a, b := Instance("/srv/a"), Instance("/srv/b")
	if a == b || a == "" || a != Instance("/srv/./a") || CgroupRoot(a) != "/knarr-"+a {
		t.Errorf("instances %q and %q with control groups below %s", a, b, CgroupRoot(a))
	}
}
