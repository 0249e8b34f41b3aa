package volume

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxEnvFile bounds what is read of an env file: a container may write any amount.
const maxEnvFile = 1 << 20

// EnvFiles reads env files (KEP-3721) in a pod's volumes.
type EnvFiles map[string]Mounted

// EnvFile implements podspec.Files. The path is resolved inside the volume, as if the volume were the root of all files, so that no symlink
// that a container planted shows it a file of the node; and a pipe or device does not block the agent.
func (v EnvFiles) EnvFile(volume, path string) ([]byte, error) {
	m, ok := v[volume]
	if !ok || m.HostPath == "" {
		return nil, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", volume)
	}
	root, err := os.Open(m.HostPath)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err == nil && len(b) > maxEnvFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxEnvFile)
	}
	return b, err
}
