package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// DefaultDataDir is where Knarr keeps everything unless told otherwise.
const DefaultDataDir = "/var/lib/knarr"

// KubeconfigPath is the administrator's kubeconfig of the cluster in dataDir.
func KubeconfigPath(dataDir string) string { return filepath.Join(dataDir, "kubeconfig") }

// EtcdDir is where the etcd of a server has its data.
func EtcdDir(dataDir string) string { return filepath.Join(dataDir, "etcd") }

// PKIDir is where a server has its keys.
func PKIDir(dataDir string) string { return filepath.Join(dataDir, "pki") }

// Instance names what the server of dataDir makes on the machine outside of it (nftables tables, links, cgroups): empty for the
// default data directory, so that the names stay plain there, and derived from the path elsewhere.
func Instance(dataDir string) string {
	if filepath.Clean(dataDir) == DefaultDataDir {
		return ""
	}
	sum := sha256.Sum256([]byte(filepath.Clean(dataDir)))
	return hex.EncodeToString(sum[:4])
}

// CgroupRoot is the control group of everything that instance runs.
func CgroupRoot(instance string) string {
	if instance == "" {
		return "/knarr"
	}
	return "/knarr-" + instance
}
