package overlay

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// hollowLabel marks nodes that only pretend to run containers (internal/node/hollow): there is nothing to reach.
const hollowLabel = "knarr.io/hollow"

// peerOf returns what matters of a Node in one family; ok is false while it has no address or no pod CIDR, and for hollow nodes.
func peerOf(n *corev1.Node, family nft.Family) (p Peer, ok bool) {
	if n.Labels[hollowLabel] == "true" {
		return Peer{}, false
	}
	p.Name = n.Name
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && nft.FamilyOf(ip) == family {
			p.IP = ip
			break
		}
	}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, s := range cidrs {
		if c, err := netip.ParsePrefix(s); err == nil && nft.FamilyOf(c.Addr()) == family {
			p.PodCIDRs = append(p.PodCIDRs, c.Masked())
		}
	}
	return p, p.IP.IsValid() && len(p.PodCIDRs) > 0
}

func (p Peer) equal(q Peer) bool {
	return p.Name == q.Name && p.IP == q.IP && slices.Equal(p.PodCIDRs, q.PodCIDRs)
}

// watchNodes sends all peers to o.peers whenever something changed, once all are known, until ctx ends.
func (o *Overlay) watchNodes(ctx context.Context) {
	known := map[string]Peer{}
	client.Follow(ctx, o.cfg.Log, o.cfg.Client, api.Nodes, client.ListOptions{}, func(b client.Batch) {
		changed := b.Full
		if b.Full {
			clear(known)
		}
		for _, e := range b.Events {
			changed = observe(known, e, o.cfg.Self.family()) || changed
		}
		if !changed {
			return
		}
		select {
		case o.peers <- slices.Collect(maps.Values(known)):
		case <-ctx.Done():
		}
	})
}

// observe takes an event into known and reports whether that made a difference: most events of Nodes are heartbeats.
func observe(known map[string]Peer, e client.Event, family nft.Family) bool {
	n := e.Object.(*corev1.Node)
	old, had := known[n.Name]
	p, ok := peerOf(n, family)
	if e.Type == client.Deleted || !ok {
		delete(known, n.Name)
		return had
	}
	known[n.Name] = p
	return !had || !p.equal(old)
}
