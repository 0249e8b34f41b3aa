package cluster

import (
	"context"
	"sync"
)

// Contact tells whether this server is in touch with the cluster's truth: with a majority of the members of etcd, or with an external etcd. While
// it is not, it can neither write nor know whether what it reads is still true.
type Contact struct {
	mu     sync.Mutex
	epoch  context.Context // ends when contact is lost; nil while it is
	lose   context.CancelFunc
	reason error
}

// NewContact returns a Contact that is in touch.
func NewContact() *Contact {
	c := &Contact{}
	c.epoch, c.lose = context.WithCancel(context.Background())
	return c
}

// Epoch returns a context that ends when contact is lost, or the reason why there is none now.
func (c *Contact) Epoch() (context.Context, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch == nil {
		return nil, c.reason
	}
	return c.epoch, nil
}

// lost ends the epoch. It reports whether there was contact until now.
func (c *Contact) lost(reason error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch == nil {
		return false
	}
	c.lose()
	c.epoch, c.reason = nil, reason
	return true
}

// regained begins an epoch. It reports whether there was no contact until now.
func (c *Contact) regained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != nil {
		return false
	}
	c.epoch, c.lose = context.WithCancel(context.Background())
	return true
}

// terms are the times during which this server leads, as contexts that end with them.
type terms struct {
	end  context.CancelFunc // of the present one, nil where there is none
	next chan context.Context
}

func newTerms() terms { return terms{next: make(chan context.Context, 1)} }

// begin starts a term, unless one is on.
func (t *terms) begin() bool {
	if t.end != nil {
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.end = cancel
	select { // one that nobody has taken up, and which has ended
	case <-t.next:
	default:
	}
	t.next <- ctx
	return true
}

// finish ends the present term, if one is on.
func (t *terms) finish() bool {
	if t.end == nil {
		return false
	}
	t.end()
	t.end = nil
	return true
}

// each calls act in each term with a context that ends with it, or with ctx, until ctx ends. An error of act in its term ends it, too.
func (t *terms) each(ctx context.Context, act func(ctx context.Context) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case term := <-t.next:
			during, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(term, cancel)
			err := act(during)
			ended := during.Err() != nil
			stop()
			cancel()
			if err != nil && !ended {
				return err
			}
		}
	}
}
