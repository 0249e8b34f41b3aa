package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/deployment"
	"github.com/knarr-io/knarr/internal/controller/endpointslice"
	"github.com/knarr-io/knarr/internal/controller/eventttl"
	"github.com/knarr-io/knarr/internal/controller/namespace"
	"github.com/knarr-io/knarr/internal/controller/nodeipam"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
	"github.com/knarr-io/knarr/internal/controller/rootca"
	"github.com/knarr-io/knarr/internal/controller/serviceaccount"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// ControlPlaneConfig is what a control plane needs besides a place for its objects.
type ControlPlaneConfig struct {
	Backend     store.Backend
	ServiceCIDR netip.Prefix
	ClusterCIDR netip.Prefix
	// CA is the bundle that pods trust the API by.
	CA []byte
	// Initial describes the objects that Bootstrap creates.
	Initial Params
	Log     *slog.Logger
}

// ControlPlane is the store, the front door, the controllers and the scheduler, wired up. It has no network of its own: the HTTP
// server is put before Registry, agents behind Client.
type ControlPlane struct {
	Store    *store.Store
	Registry *registry.Registry
	Client   *client.Local
	RBAC     *authz.RBAC

	cfg   ControlPlaneConfig
	ready chan struct{}
}

// NewControlPlane wires up a control plane; Run makes it live.
func NewControlPlane(cfg ControlPlaneConfig) *ControlPlane {
	s := store.New(cfg.Backend, cfg.Log, registry.Specs(api.Builtin)...)
	r := registry.New(registry.Config{Store: s, ServiceCIDR: cfg.ServiceCIDR, Log: cfg.Log})
	p := &ControlPlane{Store: s, Registry: r, Client: client.NewLocal(r), RBAC: authz.NewRBAC(), cfg: cfg, ready: make(chan struct{})}
	r.SetAdmission(p.admission())
	return p
}

// Ready is closed when the API can be served: the copy is loaded and the initial objects are there.
func (p *ControlPlane) Ready() <-chan struct{} { return p.ready }

// Run runs the control plane until ctx ends.
func (p *ControlPlane) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Store.Run(ctx) })
	rbac := make(chan struct{})
	g.Go(func() error { return p.RBAC.Run(ctx, p.Store, func() { close(rbac) }) })
	g.Go(func() error {
		for _, c := range []<-chan struct{}{p.Store.Ready(), rbac} {
			select {
			case <-c:
			case <-ctx.Done():
				return nil
			}
		}
		if err := p.bootstrap(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("creating the initial objects: %w", err)
		}
		close(p.ready)
		g.Go(func() error {
			return (&controller.Runner{Client: p.Client, Log: p.cfg.Log}).Run(ctx, p.controllers()...)
		})
		return nil
	})
	return g.Wait()
}

func (p *ControlPlane) bootstrap(ctx context.Context) error {
	return Bootstrap(ctx, p.Client, p.cfg.Initial)
}

func (p *ControlPlane) admission() admission.Chain { return nil }

// controllers lists every controller of the control plane.
func (p *ControlPlane) controllers() []controller.Controller {
	c := p.Client
	return []controller.Controller{
		deployment.New(c),
		replicaset.New(c),
		endpointslice.New(c),
		endpointslice.NewEndpoints(c),
		namespace.New(c, api.Builtin),
		serviceaccount.New(c),
		rootca.New(c, p.cfg.CA),
		eventttl.New(c, 0),
		nodeipam.New(c, p.cfg.ClusterCIDR),
	}
}
