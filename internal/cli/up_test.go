package cli

import (
	"os"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/cluster"
)

// A server that was killed holds its data directory for a moment longer; knarr up must not wait for it to become ready.
func TestAwaitEnd(t *testing.T) {
	dir := t.TempDir()
	lock, err := cluster.TakeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	ended := awaitEnd(t.Context(), dir, os.Getpid())
	select {
	case <-ended:
		t.Error("it ended while it had the lock")
	case <-time.After(100 * time.Millisecond):
	}
	lock.Release()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("its end was not noticed")
	}
}
