package csi

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Ref names a volume of a pod, as it is written down.
type Ref struct {
	Driver, Handle string
	// Name is that of the PersistentVolume, or of the volume in the pod if it is Inline.
	Name          string
	Pod           types.UID
	Block, Inline bool
}

// place is where a volume is, and the marks that say that it may be there.
type place struct {
	staging, target, stagedMark, publishedMark string
	// What is above these directories stays when they are empty: drivers mount it.
	stagedTop, publishedTop string
}

const (
	pluginDir = "kubernetes.io/csi"
	podDir    = "kubernetes.io~csi"
	markFile  = "vol_data.json"
)

// where returns where a volume is, in the kubelet's layout.
func (m *Manager) where(r Ref) place {
	plugin := filepath.Join(m.Root.Sockets(), pluginDir)
	if r.Block {
		devices := filepath.Join(plugin, "volumeDevices")
		data := filepath.Join(devices, r.Name, "data")
		return place{staging: filepath.Join(devices, "staging", r.Name), target: filepath.Join(devices, "publish", r.Name, string(r.Pod)),
			stagedMark: filepath.Join(data, markFile), publishedMark: filepath.Join(data, string(r.Pod)+".json"), stagedTop: devices, publishedTop: devices}
	}
	global := filepath.Join(plugin, r.Driver, fmt.Sprintf("%x", sha256.Sum256([]byte(r.Handle))))
	published := filepath.Join(m.Root.Pods(), string(r.Pod), "volumes", podDir, r.Name)
	return place{staging: filepath.Join(global, "globalmount"), target: filepath.Join(published, "mount"),
		stagedMark: filepath.Join(global, markFile), publishedMark: filepath.Join(published, markFile),
		stagedTop: filepath.Dir(global), publishedTop: m.Root.Pods()}
}

// Path returns where a volume is published for its pod.
func (m *Manager) Path(r Ref) string { return m.where(r).target }

// check returns why a reference cannot name files, or nil: what users choose is one name in a path, never more.
func (r Ref) check() error {
	for what, name := range map[string]string{"driver": r.Driver, "volume": r.Name, "pod": string(r.Pod)} {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("%s %q cannot name a directory", what, name)
		}
	}
	if r.Handle == "" {
		return errors.New("the volume has no handle")
	}
	return nil
}

// mark writes that a volume may be there, all or nothing; done is the boot of the machine in which it is.
func mark(path string, r Ref, node, attachment, done string) error {
	mode := "Persistent"
	if r.Inline {
		mode = "Ephemeral"
	}
	text, err := json.Marshal(map[string]string{"driverName": r.Driver, "volumeHandle": r.Handle, "specVolID": r.Name, "nodeName": node,
		"attachmentID": attachment, "volumeLifecycleMode": mode, "doneInBoot": done})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// marked reports whether a volume may be there, and in which boot of the machine it surely is; "" for none.
func marked(path string) (may bool, boot string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, ""
	}
	var said map[string]string
	if json.Unmarshal(text, &said) != nil {
		return true, ""
	}
	return true, said["doneInBoot"]
}

// Boot names this boot of the machine (proc_sys_kernel(5)): what was mounted in another is no longer.
func Boot() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// removeEmpty removes a path and its mark, which must be empty by now, and the directories above that are empty then, but not top.
func removeEmpty(top string, paths ...string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing a mount point: %w", err)
		}
	}
	for _, p := range paths {
		for dir := filepath.Dir(p); strings.HasPrefix(dir, top+"/"); dir = filepath.Dir(dir) {
			if os.Remove(dir) != nil {
				break // something is in it still
			}
		}
	}
	return nil
}
