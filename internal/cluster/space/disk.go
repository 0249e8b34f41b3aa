package space

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// headroom is how far the database has the blocks of its file in advance.
const headroom = 32 * mega

func (g *Guard) database() string { return filepath.Join(g.cfg.Dir, "member", "snap", "db") }

// measure asks the file system and etcd's files. g.mu is held.
func (g *Guard) measure() (Room, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(g.cfg.Dir, &fs); err != nil {
		return Room{}, fmt.Errorf("statfs %s: %w", g.cfg.Dir, err)
	}
	r := Room{Free: int64(fs.Bavail) * fs.Bsize, Disk: int64(fs.Blocks) * fs.Bsize, Data: g.cfg.Size(), Quota: g.cfg.Quota}
	if g.backedTo-r.Data < headroom/2 {
		g.back(r.Data)
	}
	r.Backed = g.backedTo - r.Data
	var err error
	r.LogLeft, r.LogSpare, err = g.logRoom()
	return r, err
}

// back gives the database the blocks that its file grows by next: it does not grow in length, so nobody sees them, and nobody else
// can take them. Without room for them it has those that it has. g.mu is held.
func (g *Guard) back(from int64) {
	f, err := os.OpenFile(g.database(), os.O_RDWR, 0)
	if err != nil {
		return // etcd has not made it yet
	}
	defer f.Close()
	for want := int64(headroom); want >= least; want /= 2 {
		if unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, want) == nil {
			g.backedTo = max(g.backedTo, from+want)
			return
		}
	}
}

// logRoom reports what the newest file of etcd's log still takes, and whether the one that follows it is there. etcd makes both as long as
// they may become, and what has not been written yet is a hole to those who ask; where the file system does not tell of holes, each file
// is taken for new. g.mu is held.
func (g *Guard) logRoom() (left int64, spare bool, _ error) {
	dir := filepath.Join(g.cfg.Dir, "member", "wal")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, false, err
	}
	newest := ""
	for _, e := range entries { // in the order of their names
		switch {
		case strings.HasSuffix(e.Name(), ".wal"):
			newest = e.Name()
		case strings.HasSuffix(e.Name(), ".tmp"):
			if info, err := e.Info(); err == nil && info.Size() >= g.cfg.Segment {
				spare = true
				if hole, err := firstHole(filepath.Join(dir, e.Name())); err == nil && hole == 0 {
					g.seesHoles = true
				}
			}
		}
	}
	if newest == "" || !g.seesHoles {
		return g.cfg.Segment, spare, nil
	}
	written, err := firstHole(filepath.Join(dir, newest))
	return max(g.cfg.Segment-written, 0), spare, err
}

// firstHole returns how far a file has been written.
func firstHole(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	if err != nil {
		return 0, fmt.Errorf("looking for the end of %s: %w", path, err)
	}
	return at, nil
}

// reserveOf is the reserve of the etcd in dir.
func reserveOf(dir string) string { return filepath.Join(filepath.Dir(dir), "etcd-reserve") }

// reserveSize is a file's worth of etcd's log and a little.
func reserveSize(segment int64) int64 { return segment + segment/4 }

// Lend gives up the reserve where the disk is so full that the etcd in dir could not start: it frees the unwritten end of its log and takes it
// again, which takes room for a moment. It reports whether it did, for [Config.Lent].
func Lend(dir string, segment int64) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || int64(fs.Bavail)*fs.Bsize > reserveSize(segment) {
		return false
	}
	return os.Remove(reserveOf(dir)) == nil
}

// provide keeps a file's worth of the log in reserve while there is room for it. It is given up, rather than being left for good, when the log
// is about to begin its next file on a full disk: without room for the one after that etcd would end. g.mu is held.
func (g *Guard) provide() {
	path, size := reserveOf(g.cfg.Dir), reserveSize(g.cfg.Segment)
	_, again := needed(g.room.Disk)
	switch st, err := os.Stat(path); {
	case err == nil && st.Size() >= g.cfg.Segment:
		if g.state.Level != Ample && g.room.LogLeft < g.cfg.Segment/4 && g.room.Free < size {
			if err := os.Remove(path); err == nil {
				g.cfg.Log.Warn("the reserve for etcd's log is given up", "file", path, "bytes", size)
			}
		}
	case g.state.Level == Ample && g.room.Free > again+size, g.cfg.Lent && g.room.Free > g.cfg.Segment:
		if err := allocate(path, min(size, g.room.Free)); err != nil {
			g.cfg.Log.Debug("making a reserve for etcd's log", "err", err) // a file system that cannot
			return
		}
		g.cfg.Lent = false
	}
}

// allocate makes a file that has all its blocks, or none.
func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		_ = os.Remove(path) // what there is of it is of no use
		return fmt.Errorf("allocating %d bytes for %s: %w", size, path, err)
	}
	return nil
}
