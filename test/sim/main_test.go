package sim

import (
	"log/slog"
	"os"
	"testing"
)

// TestMain silences what controllers log of faults that the tests cause.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}
