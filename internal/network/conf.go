package network

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// networkName names the network in CNI's own records.
func networkName(instance string) string { return TableName(instance) }

func confDir(dataDir string) string  { return filepath.Join(dataDir, "cni", "conf") }
func confFile(dataDir string) string { return filepath.Join(confDir(dataDir), "10-knarr.conflist") }

// WriteConfig writes the CNI network configuration for the instance's runtime to dataDir/cni/conf: the knarr-cni plugin, which
// finds the agent by the socket. A runtime that is configured for another directory uses another plugin; nothing in Knarr
// depends on this one.
func WriteConfig(dataDir, instance string) error {
	data, err := json.MarshalIndent(map[string]any{
		// cniVersions (specification 1.1) lets newer runtimes use STATUS and GC; older ones read cniVersion.
		"cniVersion":  "1.0.0",
		"cniVersions": []string{"1.0.0", "1.1.0"},
		"name":        networkName(instance),
		"plugins": []map[string]any{{
			"type":         "knarr-cni",
			"socket":       Socket(dataDir),
			"capabilities": map[string]bool{"portMappings": true},
		}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	if err := os.MkdirAll(confDir(dataDir), 0o755); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	// The runtime watches the directory: the file must appear whole. containerd takes note of the renaming of a file in the
	// directory, not of one that is moved into it.
	data = append(data, '\n')
	if have, err := os.ReadFile(confFile(dataDir)); err == nil && bytes.Equal(have, data) {
		return nil // a full disk is no reason not to start
	}
	tmp := confFile(dataDir) + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	if err := os.Rename(tmp, confFile(dataDir)); err != nil {
		return fmt.Errorf("CNI configuration: %w", err)
	}
	return nil
}
