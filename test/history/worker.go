package history

import (
	"context"
	"fmt"
	"sync"
)

const (
	sharedAtOnce = 6   // keys that all clients use
	sharedOps    = 150 // operations on such a key until another takes its place: a history that stays easy to check
	ownAtOnce    = 20  // objects that a writer has of its own before it deletes the oldest
)

// sharedKeys are the keys over which clients compete.
type sharedKeys struct {
	mu   sync.Mutex
	uses [sharedAtOnce]int
}

func newSharedKeys() *sharedKeys { return &sharedKeys{} }

// use returns the i-th key; after some uses it is another one.
func (k *sharedKeys) use(i int) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.uses[i]++
	return fmt.Sprintf("shared-%d-%d", i, k.uses[i]/sharedOps)
}

// ownObject is an object that nobody else writes.
type ownObject struct {
	key string
	is  Version
}

// write is the life of a writer, until ctx ends; working outlives it.
func (c *client) write(ctx, working context.Context) {
	known := map[string]Version{} // what the shared keys held when last heard of
	var own []ownObject
	for ctx.Err() == nil {
		switch {
		case c.rand.IntN(10) < 3:
			own = c.writeOwn(working, own)
		default:
			key := c.load.shared.use(c.rand.IntN(sharedAtOnce))
			if _, ok := known[key]; !ok && len(known) > 4*sharedAtOnce {
				clear(known) // keys that are no longer used
			}
			c.writeShared(working, key, known)
		}
		sleep(ctx, c.load.cfg.Pause)
	}
}

// writeOwn creates an object and, once there are many, deletes the oldest. What it does not know for sure it leaves alone.
func (c *client) writeOwn(ctx context.Context, own []ownObject) []ownObject {
	if len(own) >= ownAtOnce {
		oldest := own[0]
		c.do(ctx, Op{Kind: Delete, Key: oldest.key, Expect: oldest.is})
		return own[1:]
	}
	value := c.newValue()
	if o := c.do(ctx, Op{Kind: Create, Key: "own-" + value, Value: value}); o.Outcome == Done {
		own = append(own, ownObject{o.Key, o.Found})
	}
	return own
}

// writeShared changes an object that others change too, from what it was when last heard of: who changed it in between lets this one fail.
func (c *client) writeShared(ctx context.Context, key string, known map[string]Version) {
	is, ok := known[key]
	if !ok {
		if o := c.do(ctx, Op{Kind: Read, Key: key}); o.Outcome == Done {
			known[key] = o.Found
		}
		return
	}
	var o *Op
	switch {
	case is.Value == "":
		o = c.do(ctx, Op{Kind: Create, Key: key, Value: c.newValue()})
	case c.rand.IntN(12) == 0:
		o = c.do(ctx, Op{Kind: Delete, Key: key, Expect: is})
	default:
		o = c.do(ctx, Op{Kind: Update, Key: key, Value: c.newValue(), Expect: is})
	}
	if o.Outcome == Done {
		known[key] = o.Found // of a Delete nothing
	} else {
		delete(known, key)
	}
}

// read is the life of a reader.
func (c *client) read(ctx, working context.Context) {
	for ctx.Err() == nil {
		if c.rand.IntN(8) == 0 {
			c.do(working, Op{Kind: List})
		} else {
			c.do(working, Op{Kind: Read, Key: c.load.shared.use(c.rand.IntN(sharedAtOnce))})
		}
		sleep(ctx, c.load.cfg.Pause)
	}
}
