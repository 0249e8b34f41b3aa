// Package nodeipam gives each Node its part of the cluster's pod addresses, as kube-controller-manager's RangeAllocator does.
//
// What flows through it: a Node without spec.podCIDR gets the first free block of the cluster's range. What must stay true: no
// two Nodes have overlapping blocks; a block is free again when its Node is gone. There is one worker, and its reads see
// its own writes, so two Nodes are never given the same block. Tests: TestEachNodeItsOwnBlock, TestFreeBlock.
package nodeipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// NodeBits is the prefix length of a node's block of IPv4 addresses, as --node-cidr-mask-size defaults to.
const NodeBits = 24

// New returns the controller for the range cluster, an IPv4 prefix of at most NodeBits bits.
func New(c client.Client, cluster netip.Prefix) controller.Controller {
	return controller.Controller{
		Name:    "node-ipam",
		Watches: []controller.Watch{{Resource: api.Nodes}},
		Writes: []controller.Write{
			controller.Sets(api.Nodes, "spec", "podCIDR"),
			controller.Sets(api.Nodes, "spec", "podCIDRs"),
		},
		Reconciler: &reconciler{client: c, cluster: cluster},
	}
}

type reconciler struct {
	client  client.Client
	cluster netip.Prefix
}

// Reconcile gives the Node a block if it has none.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	node, err := client.Get[*corev1.Node](ctx, r.client, key)
	if apierrors.IsNotFound(err) || err == nil && node.Spec.PodCIDR != "" {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	nodes, err := client.List[*corev1.Node](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	var taken []netip.Prefix
	for _, n := range nodes {
		if p, err := netip.ParsePrefix(n.Spec.PodCIDR); err == nil {
			taken = append(taken, p)
		}
	}
	block, ok := free(r.cluster, taken)
	if !ok {
		return time.Minute, fmt.Errorf("node %s gets no pod addresses: all blocks of %s are taken", key.Name, r.cluster)
	}
	_, err = client.Mutate(ctx, r.client, key, "", func(n *corev1.Node) bool {
		if n.Spec.PodCIDR != "" {
			return false
		}
		n.Spec.PodCIDR, n.Spec.PodCIDRs = block.String(), []string{block.String()}
		return true
	})
	return 0, err
}

// free returns the first block of cluster that overlaps none that is taken. A cluster has thousands of nodes, each with a block of the usual
// size: whether one is taken is looked up, not searched for.
func free(cluster netip.Prefix, taken []netip.Prefix) (netip.Prefix, bool) {
	usual := make(map[netip.Addr]bool, len(taken))
	var wide []netip.Prefix // from clusters that were set up otherwise
	for _, t := range taken {
		if t.Bits() < NodeBits {
			wide = append(wide, t)
		} else if t.Addr().Is4() {
			usual[netip.PrefixFrom(t.Addr(), NodeBits).Masked().Addr()] = true
		}
	}
	size := uint32(1) << (32 - NodeBits)
	for addr := cluster.Masked().Addr(); cluster.Contains(addr); addr = plus(addr, size) {
		block := netip.PrefixFrom(addr, NodeBits)
		if !usual[addr] && !slices.ContainsFunc(wide, block.Overlaps) {
			return block, true
		}
	}
	return netip.Prefix{}, false
}

func plus(a netip.Addr, n uint32) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += n
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}
