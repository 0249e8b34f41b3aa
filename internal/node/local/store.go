package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/node/loop"
)

// Store has the volumes below one directory.
type Store struct {
	Dir string // DATA/volumes
	// Mark writes down in the API that a volume was made, before a pod gets it; nil where nobody asks.
	Mark func(ctx context.Context, pv *corev1.PersistentVolume) error
	mu   sync.Mutex
}

// Place is where a volume is. Either Dir or Disk is "".
type Place struct {
	Dir string // with its files
	// Disk is a file of the volume's size, with a file system in it unless Raw.
	Disk string
	Raw  bool
}

// About says whose a directory is, for who finds it when the API no longer knows.
type About struct {
	Volume    string `json:"volume"` // the PersistentVolume
	Namespace string `json:"namespace,omitempty"`
	Claim     string `json:"claim,omitempty"`
	Bytes     int64  `json:"bytes"` // that were asked for
	Limited   bool   `json:"limited,omitempty"`
	Raw       bool   `json:"raw,omitempty"`
}

const (
	aboutFile = "volume.json"
	dataDir   = "data"
	diskFile  = "disk"
	fresh     = ".new-"
	gone      = ".gone-"
)

// aboutOf reads a volume: what it is to be like.
func aboutOf(pv *corev1.PersistentVolume) (About, error) {
	a := About{Volume: pv.Name, Bytes: amount.Units(pv.Spec.Capacity[corev1.ResourceStorage])}
	if ref := pv.Spec.ClaimRef; ref != nil {
		a.Namespace, a.Claim = ref.Namespace, ref.Name
	}
	a.Raw = pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock
	switch limit := pv.Spec.CSI.VolumeAttributes[localvolume.LimitAttribute]; limit {
	case "", localvolume.LimitNone:
	case localvolume.LimitLoop:
		a.Limited = true
	default:
		return a, fmt.Errorf("volume attribute limit: %q is unknown; use %q or %q", limit, localvolume.LimitNone, localvolume.LimitLoop)
	}
	if fs := pv.Spec.CSI.FSType; a.Limited && fs != "" && fs != fsType {
		return a, fmt.Errorf("fsType %q: the file system of a volume with limit: %s is %s", fs, localvolume.LimitLoop, fsType)
	}
	if a.Bytes <= 0 {
		return a, errors.New("spec.capacity.storage is missing")
	}
	return a, nil
}

// fsType is the file system of volumes that are files.
const fsType = "ext4"

// Ensure returns where a volume is, which it makes if it was never there. One that was, and is not, is lost: a pod that found it empty would
// take that for its data.
func (s *Store) Ensure(ctx context.Context, pv *corev1.PersistentVolume) (Place, error) {
	handle := pv.Spec.CSI.VolumeHandle
	if err := localvolume.CheckHandle(handle); err != nil {
		return Place{}, err
	}
	a, err := aboutOf(pv)
	if err != nil {
		return Place{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := filepath.Join(s.Dir, handle)
	if _, err := os.Stat(dir); err != nil {
		switch {
		case !errors.Is(err, os.ErrNotExist):
			return Place{}, err
		case pv.DeletionTimestamp != nil:
			return Place{}, errors.New("the volume is being deleted")
		case localvolume.Made(pv):
			return Place{}, lost(pv, dir)
		}
		if err := s.make(ctx, dir, a); err != nil {
			return Place{}, fmt.Errorf("making local volume %s: %w", handle, err)
		}
	}
	p, err := place(dir, a)
	if err == nil && s.Mark != nil && !localvolume.Made(pv) {
		if err = s.Mark(ctx, pv); err != nil {
			err = fmt.Errorf("noting that local volume %s is made: %w", handle, err)
		}
	}
	return p, err
}

// lost says that a volume that was there is not there, and what to do.
func lost(pv *corev1.PersistentVolume, dir string) error {
	return fmt.Errorf("the data of local volume %s, made %s, is not on this node any more: %s is missing, as after its disk was replaced. "+
		"Put the directory back from a copy, or, to begin with an empty volume, run: kubectl annotate pv %s %s-",
		pv.Spec.CSI.VolumeHandle, pv.Annotations[localvolume.MadeAnnotation], dir, pv.Name, localvolume.MadeAnnotation)
}

// place returns where a volume that is there is. It was made as its class said at that time.
func place(dir string, a About) (Place, error) {
	data, disk := filepath.Join(dir, dataDir), filepath.Join(dir, diskFile)
	if _, err := os.Stat(disk); err == nil {
		return Place{Disk: disk, Raw: a.Raw}, nil
	}
	switch _, err := os.Stat(data); {
	case err != nil:
		return Place{}, fmt.Errorf("%s has neither files nor a disk: %w", dir, err)
	case a.Raw:
		return Place{}, fmt.Errorf("%s has files, and a block device is asked for", dir)
	}
	return Place{Dir: data}, nil
}

// make makes a volume's directory under another name, and gives it its own when it is complete.
func (s *Store) make(ctx context.Context, dir string, a About) (err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	made, err := os.MkdirTemp(s.Dir, fresh)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(made, aboutFile), append(text, '\n'), 0o600); err != nil {
		return err
	}
	if a.Raw || a.Limited {
		err = makeDisk(ctx, filepath.Join(made, diskFile), a)
	} else if err = os.Mkdir(filepath.Join(made, dataDir), 0o700); err == nil {
		err = os.Chmod(filepath.Join(made, dataDir), 0o777) // whatever the agent's umask: pods' users are not root
	}
	if err != nil {
		return err
	}
	if err := os.Rename(made, dir); err != nil {
		return err
	}
	return syncDir(s.Dir)
}

// makeDisk makes a sparse file of the volume's size, with a file system in it unless it is to be raw. Nothing of it is kept for root.
func makeDisk(ctx context.Context, path string, a About) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, a.Bytes); err != nil {
		return err
	}
	if a.Raw {
		return nil
	}
	// debugfs gives the root to all users, as that of a volume without a limit: it comes with mkfs, and so nothing has to be mounted.
	for _, c := range [][]string{{"mkfs." + fsType, "-q", "-F", "-m", "0", path}, {"debugfs", "-w", "-R", "set_inode_field / mode 040777", path}} {
		tool, err := exec.LookPath(c[0])
		if err != nil {
			return fmt.Errorf("limit: %s needs %s on this machine (package e2fsprogs): %w", localvolume.LimitLoop, c[0], err)
		}
		if out, err := exec.CommandContext(ctx, tool, c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", tool, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove removes a volume with its data, unless used, asked about it while no other pod can come, says that it is in use. It reports
// whether the volume is gone. First the directory loses its name: what is half removed is nobody's volume.
func (s *Store) Remove(handle string, used func() bool) (bool, error) {
	if err := localvolume.CheckHandle(handle); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if used() {
		return false, nil
	}
	dir, away := filepath.Join(s.Dir, handle), filepath.Join(s.Dir, gone+handle)
	if err := loop.Detach(filepath.Join(dir, diskFile)); err != nil {
		return false, err
	}
	if err := os.RemoveAll(away); err != nil { // of an earlier try
		return false, err
	}
	switch err := os.Rename(dir, away); {
	case errors.Is(err, os.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	}
	if err := syncDir(s.Dir); err != nil {
		return false, err
	}
	return true, os.RemoveAll(away)
}

// Sweep removes what an agent that died was making or removing.
func (s *Store) Sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), fresh) || strings.HasPrefix(e.Name(), gone) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// List returns the volumes that are there, by handle.
func (s *Store) List() (map[string]About, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out := map[string]About{}
	for _, e := range entries {
		if !e.IsDir() || localvolume.CheckHandle(e.Name()) != nil {
			continue
		}
		var a About
		if text, err := os.ReadFile(filepath.Join(s.Dir, e.Name(), aboutFile)); err == nil {
			_ = json.Unmarshal(text, &a) // a directory without a word about it is still one
		}
		out[e.Name()] = a
	}
	return out, nil
}
