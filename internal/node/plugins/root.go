package plugins

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Seen is the kubelet's directory, as software that is made for a kubelet names it.
const Seen = "/var/lib/kubelet"

// Root is the directory of the agent that stands for Seen.
type Root string

// RootOf returns the root of the agent with a data directory.
func RootOf(dataDir string) Root { return Root(filepath.Join(dataDir, "kubelet")) }

// Registry, Sockets and Pods are where drivers register, where they have their other sockets, and where volumes are published for pods.
func (r Root) Registry() string { return filepath.Join(string(r), "plugins_registry") }
func (r Root) Sockets() string  { return filepath.Join(string(r), "plugins") }
func (r Root) Pods() string     { return filepath.Join(string(r), "pods") }

// Host returns where a path is on this machine that somebody names: below the root if it is below Seen.
func (r Root) Host(path string) string {
	clean := filepath.Clean(path)
	if rest, ok := strings.CutPrefix(clean, Seen); ok && (rest == "" || rest[0] == '/') && string(r) != "" {
		return string(r) + rest
	}
	return path
}

// For returns how a driver names a path below the root: below Seen if that is how it names its own socket.
func (r Root) For(endpoint, path string) string {
	rest, below := strings.CutPrefix(path, string(r)+"/")
	if !below || !strings.HasPrefix(endpoint, Seen+"/") {
		return path
	}
	return filepath.Join(Seen, rest)
}

// maxSocketPath is how long the name of a socket may be (unix(7)).
const maxSocketPath = 107

// Dial connects with a socket when it is first called, however long its path is.
func Dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			var d net.Dialer
			if len(path) <= maxSocketPath {
				return d.DialContext(ctx, "unix", path)
			}
			dir, err := os.Open(filepath.Dir(path))
			if err != nil {
				return nil, err
			}
			defer dir.Close()
			return d.DialContext(ctx, "unix", filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), filepath.Base(path)))
		}))
}
