package volume

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// maxMessage is how much of a termination message is kept, in bytes
// (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
const maxMessage = 4096

// Hosts writes the pod's hosts file and returns its path.
func (d *Disk) Hosts(uid string, content []byte) (string, error) {
	path := filepath.Join(d.PodDir(uid), "etc-hosts")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
		return path, nil
	}
	if err := os.MkdirAll(d.PodDir(uid), 0o750); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, content, 0o644)
}

// MessageFile makes the empty file into which a run of a container may write its termination message, and returns its path.
func (d *Disk) MessageFile(uid, container string, attempt int32) (string, error) {
	dir := filepath.Join(d.PodDir(uid), "containers", container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, strconv.Itoa(int(attempt)))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return "", err
	}
	if err := f.Chmod(0o666); err != nil { // any user of the container writes it
		f.Close()
		return "", err
	}
	return path, f.Close()
}

// Message returns what the run of a container left as its termination message.
func (d *Disk) Message(uid, container string, attempt int32) string {
	f, err := os.Open(filepath.Join(d.PodDir(uid), "containers", container, strconv.Itoa(int(attempt))))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMessage))
	if err != nil && !errors.Is(err, io.EOF) {
		return ""
	}
	return string(b)
}
