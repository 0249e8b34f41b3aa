package space

import "fmt"

// Level is how much may be written.
type Level int

const (
	// Ample room takes all writes.
	Ample Level = iota
	// Scarce room takes essential writes.
	Scarce
	// None takes no writes at all.
	None
)

// Room is what there is to write to. Sizes are bytes.
type Room struct {
	// Free is what the file system has left, Disk its size.
	Free, Disk int64
	// Data is the size of the database, Quota what it may become.
	Data, Quota int64
	// Backed is what the database can grow by on blocks of the disk that it has already.
	Backed int64
	// LogLeft is what the log's present file still takes. LogSpare says that its next file is there.
	LogLeft  int64
	LogSpare bool
}

// State is a level and why it is not Ample.
type State struct {
	Level Level
	Why   string
}

const (
	mega = 1 << 20
	// kept is how much of a disk is kept free, unless the disk is small. etcd's log grows by 64 MB at a time.
	kept = 256 * mega
	// keptPart of a small disk is kept free.
	keptPart = 8
	// least is what the database must be able to grow by, and the log to take, for anything to be written.
	least = 4 * mega
)

// needed is how much must be free for writes to be taken, and how much for them to be taken again, which is more: a disk at the limit
// must not make the API change its mind with each write.
func needed(disk int64) (enough, again int64) {
	enough = min(kept, disk/keptPart)
	return enough, enough + enough/4
}

// Next decides how much may be written, given what could be until now. It is pure.
func Next(was Level, r Room) State {
	enough, again := needed(r.Disk)
	limit, full := enough, r.Quota-r.Quota/16
	if was != Ample {
		limit, full = again, r.Quota-r.Quota/8
	}
	switch {
	case r.Free+max(r.Backed, 0) < least:
		return State{None, fmt.Sprintf("%s left, which is not enough for anything", megabytes(r.Free))}
	case r.LogLeft < least && !r.LogSpare:
		return State{None, fmt.Sprintf("%s left, and etcd's log has no next file: restart this server once there is room", megabytes(r.Free))}
	case r.Free < limit:
		return State{Scarce, fmt.Sprintf("%s left; all writes are taken again from %s on", megabytes(r.Free), megabytes(again))}
	case r.Quota > 0 && r.Data >= full:
		return State{Scarce, fmt.Sprintf("the database has %s of the %s that it may have; what is deleted makes room in it within minutes", megabytes(r.Data), megabytes(r.Quota))}
	}
	return State{}
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", n/mega) }
