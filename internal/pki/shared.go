package pki

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// ServersGroup is the organization in the certificates by which the servers of a cluster know each other.
const ServersGroup = "knarr:servers"

// PeerFiles are where the certificates of this server as a peer of the others stand, for who reads them anew at each connection.
type PeerFiles struct {
	Cert, Key, CA string
}

// PeerFiles returns the files of the peer certificate, which there is if Params.Server is set.
func (p *PKI) PeerFiles() PeerFiles {
	return PeerFiles{Cert: p.path("peer.crt"), Key: p.path("peer.key"), CA: p.path("ca.crt")}
}

// IsPeer reports whether a connection's other end has proved to be a server of this cluster.
func IsPeer(c *tls.ConnectionState) bool {
	return c != nil && len(c.VerifiedChains) > 0 && slices.Contains(c.VerifiedChains[0][0].Subject.Organization, ServersGroup)
}

// Shared are the keys that all servers of a cluster have in common, by file name.
type Shared map[string][]byte

// sharedFiles are written in this order: an authority's certificate without its key would be damage. Data directories and backups of
// releases that had no front proxy lack its authority, which is then made anew.
var sharedFiles = [...]struct {
	name     string
	optional bool
}{{"sa.key", false}, {"ca.key", false}, {"ca.crt", false}, {"front-proxy-ca.key", true}, {"front-proxy-ca.crt", true}}

// Names returns the names of the files that there are, in the order in which they are written.
func (s Shared) Names() []string {
	var out []string
	for _, f := range sharedFiles {
		if len(s[f.name]) > 0 {
			out = append(out, f.name)
		}
	}
	return out
}

// Missing returns the name of a file that every cluster has and s lacks, or "".
func (s Shared) Missing() string {
	for _, f := range sharedFiles {
		if !f.optional && len(s[f.name]) == 0 {
			return f.name
		}
	}
	return ""
}

// Shared returns the keys that a further server of the cluster needs.
func (p *PKI) Shared() (Shared, error) { return ReadShared(p.dir) }

// ReadShared reads them from the directory of a server's keys.
func ReadShared(dir string) (Shared, error) {
	out := Shared{}
	for _, f := range sharedFiles {
		b, err := os.ReadFile(filepath.Join(dir, f.name))
		if f.optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the cluster's keys: %w", err)
		}
		out[f.name] = b
	}
	return out, nil
}

// Install writes keys that another server gave into dir, for Ensure to find. Keys of another cluster that are there already are an
// error.
func Install(dir string, shared Shared) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory for certificates: %w", err)
	}
	if name := shared.Missing(); name != "" {
		return fmt.Errorf("the server that was joined did not send %s", name)
	}
	for _, name := range shared.Names() {
		data, path := shared[name], filepath.Join(dir, name)
		switch old, err := os.ReadFile(path); {
		case err == nil && string(old) == string(data):
			continue
		case err == nil:
			return fmt.Errorf("%s is of another cluster: run knarr down --delete-data first, or choose another --data-dir", path)
		case !errors.Is(err, os.ErrNotExist):
			return err
		}
		mode := os.FileMode(0o600)
		if filepath.Ext(name) == ".crt" {
			mode = 0o644
		}
		if err := WriteFile(path, data, mode); err != nil {
			return err
		}
	}
	return nil
}
