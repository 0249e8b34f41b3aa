package overlay

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/client"
)

// hollowLabel marks nodes that only pretend to run containers (internal/node/hollow): there is nothing to reach.
const hollowLabel = "knarr.io/hollow"

// peerOf returns what matters of a Node; ok is false while it has no address or no pod CIDR, and for hollow nodes.
func peerOf(n *corev1.Node) (p Peer, ok bool) {
	if n.Labels[hollowLabel] == "true" {
		return Peer{}, false
	}
	p.Name = n.Name
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && ip.Is4() {
			p.IP = ip
			break
		}
	}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, s := range cidrs {
		if c, err := netip.ParsePrefix(s); err == nil && c.Addr().Is4() {
			p.PodCIDRs = append(p.PodCIDRs, c.Masked())
		}
	}
	return p, p.IP.IsValid() && len(p.PodCIDRs) > 0
}

func (p Peer) equal(q Peer) bool {
	return p.Name == q.Name && p.IP == q.IP && slices.Equal(p.PodCIDRs, q.PodCIDRs)
}

// watchNodes sends all peers to o.peers whenever something changed, once all are known, until the watch fails or ctx ends.
func (o *Overlay) watchNodes(ctx context.Context) error {
	w, err := client.Watch[*corev1.Node](ctx, o.cfg.Client, client.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	known, synced := map[string]Peer{}, false
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		changed := false
		for _, e := range events {
			switch e.Type {
			case client.Reset:
				known, synced = map[string]Peer{}, false
			case client.Synced:
				synced, changed = true, true
			default:
				changed = observe(known, e) || changed
			}
		}
		if !synced || !changed {
			continue
		}
		peers := make([]Peer, 0, len(known))
		for _, p := range known {
			peers = append(peers, p)
		}
		select {
		case o.peers <- peers:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// observe takes an event into known and says whether that made a difference: most events of Nodes are heartbeats.
func observe(known map[string]Peer, e client.Event) bool {
	n, ok := e.Object.(*corev1.Node)
	if !ok {
		return false
	}
	old, had := known[n.Name]
	p, ok := peerOf(n)
	if e.Type == client.Deleted || !ok {
		delete(known, n.Name)
		return had
	}
	known[n.Name] = p
	return !had || !p.equal(old)
}
