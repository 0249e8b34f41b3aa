package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/store"
)

// crashDir is set in the process that TestWhatWasConfirmedSurvivesAKill starts.
const crashDir = "KNARR_TEST_CRASH_DIR"

// TestWhatWasConfirmedSurvivesAKill starts this test again in a process that writes until it is killed, and looks for all that it had
// confirmed.
func TestWhatWasConfirmedSurvivesAKill(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		c, _ := startEtcd(t, dir, true)
		s, _ := run(t, store.NewEtcd(c))
		for i := 0; ; i++ {
			rev, err := s.Commit(context.Background(), write(s, configMap(fmt.Sprint("c", i), "", i), 0))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("confirmed %d %d\n", i, rev)
		}
	}
	dir := t.TempDir() + "/etcd"
	cmd := exec.Command(os.Args[0], "-test.run=^TestWhatWasConfirmedSurvivesAKill$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	revs := map[int]int64{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) != 3 || f[0] != "confirmed" {
			t.Log(lines.Text())
			continue
		}
		i, _ := strconv.Atoi(f[1])
		revs[i], _ = strconv.ParseInt(f[2], 10, 64)
		if len(revs) == 100 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	if len(revs) < 100 {
		t.Fatalf("only %d writes were confirmed", len(revs))
	}
	c, stop := startEtcd(t, dir, true)
	defer stop()
	s, end := run(t, store.NewEtcd(c))
	defer end()
	for i, rev := range revs {
		have, ok := s.Table(prefix).Get(fmt.Sprint("c", i))
		if !ok || have.Rev != rev || count(have.Object) != i {
			t.Errorf("write %d, confirmed at %d, is %+v after the crash", i, rev, have)
		}
	}
}
