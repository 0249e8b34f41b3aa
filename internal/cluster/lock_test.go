package cluster

import "testing"

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
	if RunningServer(dir) == 0 {
		t.Error("the running server is not seen")
	}
	l.Release()
	if pid := RunningServer(dir); pid != 0 {
		t.Errorf("process %d is said to run after it let go", pid)
	}
}
