package network

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/guard"
	"github.com/knarr-io/knarr/internal/network/ipam"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// GuardTableName returns the nftables table of the instance's network policies. Names of instances have no underscore.
func GuardTableName(instance string) string { return TableName(instance) + "_policies" }

// guarding is what keeps network policies in force.
type guarding struct {
	*guard.Guard
	tables []*nft.Conn
}

func (n *Node) newGuarding(family nft.Family) (*guarding, error) {
	g := &guarding{}
	var kernels []*guard.Kernel
	for range 2 { // one to write, one to read figures at the same time
		table, err := nft.Open(nft.Table{Family: family, Name: GuardTableName(n.cfg.Instance)})
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.tables = append(g.tables, table)
		kernels = append(kernels, guard.NewKernel(family, table))
	}
	var attached []policy.Attachment
	for _, a := range n.pool.List() {
		attached = append(attached, attachments(a)...)
	}
	g.Guard = guard.New(guard.Config{Client: n.cfg.Client, Kernels: kernels[:1], Attached: attached, Metrics: n.cfg.Metrics, Log: n.cfg.Log})
	if n.cfg.Metrics != nil {
		if err := n.cfg.Metrics.Register(guard.NewFigures(g.Guard, kernels[1])); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

func (g *guarding) close() error {
	var errs []error
	for _, t := range g.tables {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// admit returns once the pod of an allocation has its rules: it gets its link after that.
func (g *guarding) admit(ctx context.Context, a ipam.Allocation) error {
	return g.Attach(ctx, attachments(a)...)
}

// dismiss says that an allocation's pod is gone.
func (g *guarding) dismiss(ctx context.Context, a ipam.Allocation) error {
	return g.Detach(ctx, a.Addrs()...)
}

// attachments are the addresses of an allocation as policies see them.
func attachments(a ipam.Allocation) []policy.Attachment {
	var out []policy.Attachment
	for _, addr := range a.Addrs() {
		out = append(out, policy.Attachment{Addr: addr, Pod: api.Key{Namespace: a.PodNamespace, Name: a.PodName}, UID: types.UID(a.PodUID)})
	}
	return out
}
