package report

import (
	"context"
	"time"

	"github.com/knarr-io/knarr/internal/node/task"
)

// How often, and for how long, the node shows that it lives after it lost a connection; nodelifecycle counts on it.
const (
	hastyInterval = 2 * time.Second
	hastyBeats    = 10
)

// Hasten renews the node's Lease and looks after its status at once each time lost says that the connection with a server was lost or is
// back, and for a while afterwards, until ctx ends: a node that lives is heard of by way of another server before it is taken for
// dead, and one that was taken for dead is back as soon as it can be.
func (n *Node) Hasten(ctx context.Context, lost <-chan struct{}) {
	for {
		select {
		case <-lost:
		case <-ctx.Done():
			return
		}
		for left := hastyBeats; left > 0 && ctx.Err() == nil && !n.isDeleted(); left-- {
			if n.registered() {
				call, cancel := context.WithTimeout(ctx, 2*hastyInterval) // a server that is gone must not hold up the next attempt
				n.warn("renewing the node's lease", task.Quiet(ctx, n.renewLease(call)))
				_, err := n.writeStatus(call, false)
				n.warn("writing the node's status", task.Quiet(ctx, err))
				cancel()
			}
			select {
			case <-lost:
				left = hastyBeats + 1
			case <-time.After(hastyInterval):
			case <-ctx.Done():
			}
		}
	}
}
