package persistent

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/csi"
)

// Record is what stands beside a mount: which volume it is, and whose.
type Record struct {
	Pod       types.UID `json:"podUID"`
	PodName   string    `json:"pod"`
	Name      string    `json:"name"` // of the volume in the pod
	Namespace string    `json:"namespace"`
	Claim     string    `json:"claim"`
	Volume    string    `json:"volume"` // the PersistentVolume
	// Driver and Handle name the volume where it is spec.csi.
	Driver   string `json:"driver,omitempty"`
	Handle   string `json:"handle,omitempty"`
	Block    bool   `json:"block,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Inline says that the volume stands in the pod's specification (csi), Again that its driver wants to be told of it from time to time.
	Inline bool `json:"inline,omitempty"`
	Again  bool `json:"again,omitempty"`
	// Path is the block device that was there before, Device the file behind one that was made.
	Path   string `json:"path,omitempty"`
	Device string `json:"device,omitempty"`
}

const (
	claimsDir  = "claims"
	mountPoint = "mount"
	recordFile = "volume.json"
)

// recordOf returns what is written down of a volume of a pod.
func recordOf(pod types.UID, podName string, v *Volume) *Record {
	r := &Record{Pod: pod, PodName: podName, Name: v.Name, Namespace: v.Claim.Namespace, Claim: v.Claim.Name, Volume: v.PV.Name, Block: v.Block(), ReadOnly: v.ReadOnly, Inline: v.Inline}
	if of := v.PV.Spec.CSI; of != nil {
		r.Driver, r.Handle, r.ReadOnly = of.Driver, of.VolumeHandle, r.ReadOnly || of.ReadOnly
	}
	return r
}

// foreign reports whether the volume is of a driver that has registered, or is to.
func (r *Record) foreign() bool { return r.Driver != "" && r.Driver != localvolume.Driver }

// ref returns how the volume is named to package csi.
func (r *Record) ref() csi.Ref {
	return csi.Ref{Driver: r.Driver, Handle: r.Handle, Name: r.Volume, Pod: r.Pod, Block: r.Block, Inline: r.Inline}
}

// write writes a record into dir, all or nothing, unless it stands there.
func (r *Record) write(dir string) error {
	path := filepath.Join(dir, recordFile)
	if have, err := read(path); err == nil {
		if r.Again = have.Again; *have == *r {
			return nil
		}
	}
	return r.replace(dir)
}

func (r *Record) replace(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	path := filepath.Join(dir, recordFile)
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// again notes whether a driver wants to be told of its volume from time to time.
func (r *Record) again(dir string, is bool) error {
	r.Again = is
	return r.replace(dir)
}

func read(path string) (*Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Record{}
	return r, json.Unmarshal(text, r)
}

// allRecords returns what is written down of all pods below a directory.
func allRecords(podsDir string) ([]*Record, error) { return records(podsDir, "*") }

// records returns those of one pod, or of all where pod is "*".
func records(podsDir, pod string) ([]*Record, error) {
	files, err := filepath.Glob(filepath.Join(podsDir, pod, claimsDir, "*", recordFile))
	if err != nil {
		return nil, err
	}
	var out []*Record
	for _, f := range files {
		r, err := read(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
