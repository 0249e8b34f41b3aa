package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const sample = `2026-01-02T03:04:05.000000001Z stdout F one
2026-01-02T03:04:06.000000001Z stderr F two
2026-01-02T03:04:07.000000001Z stdout P thr
2026-01-02T03:04:07.000000002Z stdout F ee
rubbish
2026-01-02T03:04:08.000000001Z stdout F four
`

func ptr[T any](v T) *T { return &v }

func file(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCopy(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 10, 0, time.UTC)
	for name, tc := range map[string]struct {
		o    corev1.PodLogOptions
		want string
	}{
		"all":        {corev1.PodLogOptions{}, "one\ntwo\nthree\nfour\n"},
		"tail 1":     {corev1.PodLogOptions{TailLines: ptr(int64(1))}, "four\n"},
		"tail 0":     {corev1.PodLogOptions{TailLines: ptr(int64(0))}, ""},
		"tail many":  {corev1.PodLogOptions{TailLines: ptr(int64(99))}, "one\ntwo\nthree\nfour\n"},
		"since":      {corev1.PodLogOptions{SinceSeconds: ptr(int64(4))}, "two\nthree\nfour\n"},
		"since time": {corev1.PodLogOptions{SinceTime: &metav1.Time{Time: now.Add(-2 * time.Second)}}, "four\n"},
		"limit":      {corev1.PodLogOptions{LimitBytes: ptr(int64(6))}, "one\ntw"},
		"stderr":     {corev1.PodLogOptions{Stream: ptr(corev1.LogStreamStderr)}, "two\n"},
		"times": {corev1.PodLogOptions{Timestamps: true, TailLines: ptr(int64(4))},
			"2026-01-02T03:04:07.000000001Z three\n2026-01-02T03:04:08.000000001Z four\n"},
	} {
		var b bytes.Buffer
		if err := Copy(t.Context(), file(t, sample), &tc.o, now, &b, nil); err != nil || b.String() != tc.want {
			t.Errorf("%s: %q %v, want %q", name, b.String(), err, tc.want)
		}
	}
	if err := Copy(t.Context(), filepath.Join(t.TempDir(), "none"), &corev1.PodLogOptions{}, now, &bytes.Buffer{}, nil); !os.IsNotExist(err) {
		t.Errorf("a missing log: %v", err)
	}
}

func TestTailAcrossBlocks(t *testing.T) {
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "2026-01-02T03:04:05Z stdout F line %d\n", i)
	}
	path := file(t, text.String())
	for _, n := range []int64{1, 2, 400, 401, 4999, 5000} {
		var b bytes.Buffer
		if err := Copy(t.Context(), path, &corev1.PodLogOptions{TailLines: &n}, time.Time{}, &b, nil); err != nil {
			t.Fatal(err)
		}
		if got := int64(strings.Count(b.String(), "\n")); got != n || !strings.HasPrefix(b.String(), fmt.Sprintf("line %d\n", 5000-n)) {
			t.Errorf("tail %d: %d lines, %.20q", n, got, b.String())
		}
	}
	if got := Tail(path, 2, 12); got != "8\nline 4999\n" {
		t.Errorf("Tail: %q", got)
	}
}

// locked is a buffer for two goroutines.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) { l.mu.Lock(); defer l.mu.Unlock(); return l.b.Write(p) }
func (l *locked) String() string              { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func TestFollowAcrossRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := file(t, "2026-01-02T03:04:05Z stdout F one\n")
		add := func(text string) {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString("2026-01-02T03:04:05Z stdout F " + text + "\n"); err != nil {
				t.Fatal(err)
			}
		}
		var ended sync.Map
		var out locked
		done := make(chan error, 1)
		go func() {
			done <- Copy(context.Background(), path, &corev1.PodLogOptions{Follow: true}, time.Now(), &out, func() bool { _, e := ended.Load("x"); return e })
		}()
		wait := func(want string) {
			t.Helper()
			time.Sleep(time.Second) // the bubble's clock
			synctest.Wait()
			if got := out.String(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		wait("one\n")
		add("two")
		wait("one\ntwo\n")
		add("three")
		moved, err := Rotate(path, 1, 3, time.Now(), func() error { return os.WriteFile(path, nil, 0o600) })
		if err != nil || !moved {
			t.Fatal(moved, err)
		}
		add("four")
		wait("one\ntwo\nthree\nfour\n")
		add("five")
		ended.Store("x", true)
		wait("one\ntwo\nthree\nfour\nfive\n")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestRotate(t *testing.T) {
	path := file(t, sample)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	reopen := func() error { return os.WriteFile(path, []byte(sample), 0o600) }
	if moved, err := Rotate(path, 1<<20, 3, now, reopen); moved || err != nil {
		t.Errorf("a short log was moved: %v", err)
	}
	for i := range 5 {
		if moved, err := Rotate(path, 10, 3, now.Add(time.Duration(i)*time.Second), reopen); !moved || err != nil {
			t.Fatal(moved, err)
		}
	}
	left, _ := filepath.Glob(path + "*")
	if len(left) != 3 {
		t.Errorf("left %v", left)
	}
	if moved, err := Rotate(path, 10, 3, now.Add(time.Minute), func() error { return fmt.Errorf("no") }); moved || err == nil {
		t.Error("a failed reopen was taken as a rotation")
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the log was not put back: %v", err)
	}
	if err := RemoveRun(path); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func FuzzParse(f *testing.F) {
	for _, l := range strings.SplitAfter(sample, "\n") {
		f.Add([]byte(l))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parse(b)
		if err == nil && l.stream != "stdout" && l.stream != "stderr" {
			t.Errorf("%q gave stream %q", b, l.stream)
		}
	})
}
