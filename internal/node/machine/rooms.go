package machine

import (
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// Rooms measures what is left: of memory bytes in all, of the disk of dir, of processes.
func Rooms(dir string, memory int64) lifecycle.Rooms {
	var r lifecycle.Rooms
	if left, err := memInfo("MemAvailable"); err == nil {
		r.Memory = lifecycle.Room{Left: uint64(left), Total: uint64(memory)}
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		size := uint64(fs.Bsize)
		// Of what can be used at all: a quota or what is reserved for root is not there.
		r.Disk = lifecycle.Room{Left: fs.Bavail * size, Total: (fs.Blocks - fs.Bfree + fs.Bavail) * size}
		r.Files = lifecycle.Room{Left: fs.Ffree, Total: fs.Files}
	}
	left, most := Processes()
	r.Processes = lifecycle.Room{Left: uint64(max(left, 0)), Total: uint64(most)}
	return r
}
