package nodelifecycle

import (
	"context"
	"fmt"
	"time"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// Links knows which nodes' agents are connected with this server. agentlink.Hub does.
type Links interface {
	// State tells what is known of a node's connection.
	State(node string) agentlink.State
	// Follow calls changed with each node that connects or is lost, until ctx ends.
	Follow(ctx context.Context, changed func(node string))
}

// Agents keep a connection with every server, and renew their Lease at once and then every two seconds for a while when they lose
// one (node.Agent.Hasten). So a node that lives either connects again or is soon heard of by way of another server.
const (
	// linkSlack is how long after its last sign of life on the connection a node that died may have renewed its Lease.
	linkSlack = 2 * time.Second
	// linkRecent is for how long after the loss an agent certainly hastens.
	linkRecent = 15 * time.Second
	// beatAtLeast is the longest time between two renewals of an agent that lives and does not hasten.
	beatAtLeast = 12 * time.Second
)

// lostAt returns when a node with that connection counts as lost unless it is heard of before. ok is false where nothing follows from
// the connection and only the Lease counts: it is there, there never was one (the server's own node, hollow nodes), the agent said that it
// ends while its containers go on, or the node has been heard of since by way of another server.
func lostAt(beat heartbeat, link agentlink.State, grace time.Duration) (at time.Time, ok bool) {
	switch {
	case link.Connected || link.Lost.IsZero() || beat.left:
		return at, false
	case beat.at.After(beat.first) && beat.at.After(link.Lost.Add(linkSlack)):
		return at, false
	case !beat.first.After(link.Lost):
		return link.Lost.Add(grace), true
	case beat.first.Sub(link.Lost) < linkRecent:
		// This process leads since a moment ago and cannot know whether the Lease was renewed in between.
		return beat.first.Add(grace), true
	}
	return beat.first.Add(beatAtLeast), true
}

// lostMessage says in words why a node counts as lost.
func lostMessage(link agentlink.State) string {
	return fmt.Sprintf("The agent's connection with the control plane ended: %s. Last heard of at %s, and its Lease has not been renewed since.",
		link.Why, link.Lost.UTC().Format(time.TimeOnly))
}

// follow looks at nodes whose agents connect or are lost.
func follow(links Links) func(ctx context.Context, look func(api.Key)) {
	if links == nil {
		return nil
	}
	return func(ctx context.Context, look func(api.Key)) {
		links.Follow(ctx, func(node string) { look(api.Key{Name: node}) })
	}
}
