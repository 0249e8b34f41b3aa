package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Rotate moves the log at path aside if it is longer than maxSize bytes, asks the runtime by reopen to begin a new file, and removes
// moved files so that keep files stand in all. It reports whether it moved the log.
func Rotate(path string, maxSize int64, keep int, now time.Time, reopen func() error) (bool, error) {
	st, err := os.Stat(path)
	if err != nil {
		if os.IsNotExist(err) {
			return false, nil
		}
		return false, err
	}
	if st.Size() < maxSize {
		return false, nil
	}
	aside := path + "." + now.UTC().Format("20060102-150405")
	if err := os.Rename(path, aside); err != nil {
		return false, err
	}
	if err := reopen(); err != nil {
		// The runtime still writes to the moved file: put it back, so that nothing is lost.
		if back := os.Rename(aside, path); back != nil {
			return false, fmt.Errorf("reopening log: %w (and moving it back: %v)", err, back)
		}
		return false, fmt.Errorf("reopening log: %w", err)
	}
	old, err := filepath.Glob(path + ".*")
	if err != nil {
		return true, err
	}
	sort.Strings(old)
	for i := 0; i < len(old)-(keep-1); i++ {
		if err := os.Remove(old[i]); err != nil && !os.IsNotExist(err) {
			return true, err
		}
	}
	return true, nil
}

// RemoveRun removes the log of one run of a container, with what was moved aside of it.
func RemoveRun(path string) error {
	all, err := filepath.Glob(strings.NewReplacer("[", "\\[", "*", "\\*", "?", "\\?").Replace(path) + "*")
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
