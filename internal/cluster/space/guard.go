package space

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Config is what a Guard looks after.
type Config struct {
	// Dir is etcd's data directory.
	Dir string
	// Size is how far the database's file is in use, and InUse how much of that holds something.
	Size, InUse func() int64
	// Shrink gives back what the database's file holds for nothing. It takes as much room as the new file has, and holds up writes.
	Shrink func() error
	// Quota is what the database may become.
	Quota int64
	// Segment is the size of a file of etcd's log.
	Segment int64
	// Lent says that the reserve was given up for etcd's start.
	Lent bool
	Log  *slog.Logger
}

const (
	// lookAfter is how old a measurement may be that a write relies on.
	lookAfter = 100 * time.Millisecond
	// lookAgain is how often a full disk is looked at.
	lookAgain = time.Second
	// shrinkPause is the time between two attempts to shrink the database.
	shrinkPause = 10 * time.Second
)

// Guard says what may be written.
type Guard struct {
	cfg  Config
	full chan struct{} // the level has changed from Ample

	mu        sync.Mutex
	looked    time.Time
	room      Room
	state     State
	broken    bool  // measuring fails, which has been logged
	backedTo  int64 // the database has the blocks of its file up to here
	seesHoles bool  // the file system tells how far a file has been written
}

// New returns a Guard. Run belongs to it.
func New(cfg Config) *Guard {
	return &Guard{cfg: cfg, full: make(chan struct{}, 1)}
}

// Admit returns why nothing may be written, or nil. Essential is what keeps nodes and pods alive or makes room.
func (g *Guard) Admit(essential bool) error {
	switch s := g.look(lookAfter); {
	case s.Level == Ample, s.Level == Scarce && essential:
		return nil
	case s.Level == Scarce:
		return fmt.Errorf("the API is read-only: the disk of %s is full (%s): delete what is not needed, there or through this API, or enlarge the disk",
			g.cfg.Dir, s.Why)
	default:
		return fmt.Errorf("the API is read-only: the disk of %s is full (%s): make room there, or enlarge the disk", g.cfg.Dir, s.Why)
	}
}

// Check returns why the API is read-only, or nil.
func (g *Guard) Check(context.Context) error {
	if s := g.look(lookAgain); s.Level != Ample {
		return fmt.Errorf("the disk of %s is full: %s", g.cfg.Dir, s.Why)
	}
	return nil
}

// look measures, unless somebody did within age, and decides.
func (g *Guard) look(age time.Duration) State {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if now.Sub(g.looked) < age {
		return g.state
	}
	g.looked = now
	room, err := g.measure()
	if err != nil {
		if !g.broken {
			g.cfg.Log.Warn("measuring the disk of the cluster's data", "dir", g.cfg.Dir, "err", err)
		}
		g.broken = true
		return g.state // as it was last known to be
	}
	g.broken, g.room = false, room
	was := g.state
	g.state = Next(was.Level, room)
	g.provide()
	if was.Level != g.state.Level {
		g.tell(was)
	}
	return g.state
}

// tell logs a change of the level and wakes Run.
func (g *Guard) tell(was State) {
	args := []any{"dir", g.cfg.Dir, "freeBytes", g.room.Free, "databaseBytes", g.room.Data}
	switch g.state.Level {
	case Ample:
		g.cfg.Log.Info("there is room on the disk: the API takes all writes again", args...)
		return
	case Scarce:
		g.cfg.Log.Error("the disk is full: the API is read-only but for leases, statuses, nodes, scaling, evictions and deletions",
			append(args, "why", g.state.Why)...)
	case None:
		g.cfg.Log.Error("the disk is full: the API is read-only", append(args, "why", g.state.Why)...)
	}
	if was.Level == Ample {
		select {
		case g.full <- struct{}{}:
		default: // Run has not come to it yet
		}
	}
}

// Run looks at a full disk until there is room, and shrinks the database where that makes some, until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	g.look(0)
	var shrunk time.Time
	for {
		select {
		case <-g.full:
		case <-ctx.Done():
			return nil
		}
		for g.look(0).Level != Ample {
			if time.Since(shrunk) > shrinkPause && g.worthShrinking() {
				shrunk = time.Now()
				g.shrink()
			}
			select {
			case <-time.After(lookAgain):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// worthShrinking reports whether a third of the database's file holds nothing, and there is room for the new one.
func (g *Guard) worthShrinking() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := g.cfg.InUse()
	return used < g.room.Data-g.room.Data/3 && g.room.Free > used+used/4+least
}

func (g *Guard) shrink() {
	before := g.cfg.Size()
	if err := g.cfg.Shrink(); err != nil {
		g.cfg.Log.Warn("shrinking the database", "dir", g.cfg.Dir, "err", err)
		return
	}
	g.cfg.Log.Info("the database has been shrunk", "dir", g.cfg.Dir, "bytesBefore", before, "bytes", g.cfg.Size())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.backedTo = 0 // it is another file
}
