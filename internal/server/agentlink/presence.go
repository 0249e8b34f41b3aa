package agentlink

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// State reports whether a node's agent is connected with this server.
type State struct {
	Connected bool
	// Lost is when the node was last heard of over the last connection, where there is none any more. The zero time means that there has
	// never been one, or not for a long time: nothing follows from that.
	Lost time.Time
	// Why is what ended it, in words.
	Why string
}

// AnnotationLeft is on a node's Lease while its agent is away that ended in order, and says since when. Its containers go on, so the end of
// its connection says nothing about the node.
const AnnotationLeft = "knarr.io/agent-left"

// presence is what a Hub knows of one node.
type presence struct {
	links []*link // those that live, the newest last
	lost  State   // where none does
}

const (
	// mostLinks bounds the connections of one node: an agent has one, or two where it knows the server by two names.
	mostLinks = 4
	// remembered is how long a node that is not connected is known.
	remembered = time.Hour
)

// State tells what is known of a node's connection.
func (h *Hub) State(node string) State {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.nodes[node]
	switch {
	case p == nil:
		return State{}
	case len(p.links) > 0:
		return State{Connected: true}
	}
	return p.lost
}

// Follow calls changed with the name of each node that connects or is lost from now on, until ctx ends. changed must not block.
func (h *Hub) Follow(ctx context.Context, changed func(node string)) {
	me := &changed
	h.mu.Lock()
	h.followers = append(h.followers, me)
	h.mu.Unlock()
	<-ctx.Done()
	h.mu.Lock()
	h.followers = slices.DeleteFunc(h.followers, func(f *func(string)) bool { return f == me })
	h.mu.Unlock()
}

// add notes a new connection and returns one that is too many.
func (h *Hub) add(l *link) (surplus *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.nodes[l.node]
	if p == nil {
		p = &presence{}
		h.nodes[l.node] = p
	}
	p.links, p.lost = append(p.links, l), State{}
	if len(p.links) == 1 {
		h.log.Info("an agent has connected", "node", l.node, "from", l.conn.RemoteAddr().String())
		h.tell(l.node)
	}
	if len(p.links) > mostLinks {
		return p.links[0]
	}
	return nil
}

// drop notes that a connection ended at now.
func (h *Hub) drop(l *link, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for node, p := range h.nodes {
		if len(p.links) == 0 && now.Sub(p.lost.Lost) > remembered {
			delete(h.nodes, node)
		}
	}
	p := h.nodes[l.node]
	p.links = slices.DeleteFunc(p.links, func(o *link) bool { return o == l })
	if len(p.links) > 0 {
		return
	}
	p.lost = lostState(l.conn.err, now)
	h.log.Info("an agent's connection has ended", "node", l.node, "why", p.lost.Why)
	h.tell(l.node)
}

// lostState says since when a node has not been heard of whose connection ended at now with err.
func lostState(err error, now time.Time) State {
	switch {
	case silent(err):
		return State{Lost: now.Add(-aliveTimeout), Why: "it does not answer any more"}
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return State{Lost: now, Why: "it was closed"}
	}
	return State{Lost: now, Why: err.Error()}
}

// tell tells followers of a node. h.mu is held.
func (h *Hub) tell(node string) {
	for _, f := range h.followers {
		(*f)(node)
	}
}
