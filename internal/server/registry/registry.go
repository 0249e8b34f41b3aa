// Package registry is the front door: every read and write of API objects, from HTTP or from a controller in the same process,
// passes here.
//
// What flows through it: a write is defaulted, admitted, prepared, validated and committed to the store, in that order, and
// answered with the stored object; reads and watches are served from the store's copy. Errors are API statuses. What must
// stay true: there is no other way to write an object; an object given to a write belongs to the registry from then on; what
// is refused changes nothing.
package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/patch"
	"github.com/knarr-io/knarr/internal/server/times"
	"github.com/knarr-io/knarr/internal/store"
)

// Config is what a Registry works with.
type Config struct {
	Store *store.Store
	// Admission makes the plugins that every write passes, given what some of them write through (the status of quotas); nil: none.
	Admission func(front *Registry) admission.Chain
	// Record keeps managedFields of every object, not only of those that somebody applied to: for tests of who writes what.
	Record bool
	// ServiceCIDR is where cluster IPs come from.
	ServiceCIDR netip.Prefix
	// NodePorts are the first and last port that Services of type NodePort may have; 0 means 30000-32767.
	NodePorts [2]int32
	// Space says whether there is room for what is written; nil: always.
	Space Space
	Log   *slog.Logger
}

// Registry reads and writes objects.
type Registry struct {
	store      *store.Store
	admission  admission.Chain
	served     *api.Served
	exchanging sync.Mutex // held while the catalogue changes
	managers   *patch.Managers
	recordAll  bool
	allocators map[*api.Resource]allocator
	pages      pageCache
	times      times.Cutter
	turns      turns
	space      Space
	log        *slog.Logger
}

// New returns a Registry over cfg.Store, which must have been made with Specs.
func New(cfg Config) *Registry {
	if cfg.NodePorts == [2]int32{} {
		cfg.NodePorts = [2]int32{30000, 32767}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	served := api.NewServed(api.BuiltinCatalog())
	r := &Registry{store: cfg.Store, served: served, managers: patch.NewManagers(served.Now), recordAll: cfg.Record, space: cfg.Space, log: cfg.Log}
	r.allocators = map[*api.Resource]allocator{api.Services: &serviceAllocator{registry: r, cidr: cfg.ServiceCIDR, portRange: cfg.NodePorts}}
	if cfg.Admission != nil {
		r.admission = cfg.Admission(r)
	}
	return r
}

// Store returns the store below.
func (r *Registry) Store() *store.Store { return r.store }

// Revision returns the newest revision of the copy, as a resourceVersion.
func (r *Registry) Revision() string { return store.FormatRevision(r.store.Revision()) }

// Fresh returns when reads show everything that any server of the cluster acknowledged before the call. ServiceUnavailable where that cannot be
// found out.
func (r *Registry) Fresh(ctx context.Context) error {
	err := r.store.Fresh(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrEnded):
		return apierrors.NewServiceUnavailable("the server is shutting down")
	}
	return apierrors.NewServiceUnavailable(fmt.Sprintf("this server could not confirm with the others that what it knows is still true (%v): try again, or ask another server", err))
}

// Reach waits briefly until reads show the given resourceVersion; "" and "0" are any.
func (r *Registry) Reach(ctx context.Context, resourceVersion string) error {
	want, err := parseRevision(resourceVersion)
	if err != nil {
		return err
	}
	return r.reach(ctx, want)
}

// storeError turns an error of the store into an API status.
func (r *Registry) storeError(err error, res *api.Resource, verb, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrEnded):
		return apierrors.NewServiceUnavailable("the server is shutting down")
	case errors.Is(err, store.ErrDropped) && r.store.Table(res.Table()) != nil: // its table is another one by now
		return apierrors.NewServerTimeout(res.GroupResource(), verb, 1)
	case errors.Is(err, store.ErrDropped):
		return notServed(res)
	case errors.Is(err, store.ErrFenced):
		return apierrors.NewServiceUnavailable(err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, store.ErrUnavailable), errors.As(err, new(*store.ConflictError)):
		return apierrors.NewTimeoutError(fmt.Sprintf("the %s of %s %q was not confirmed in time; it may yet take effect", verb, res.GroupResource(), name), 1)
	case errors.Is(err, store.ErrFull):
		return apierrors.NewServiceUnavailable(fmt.Sprintf("the API is read-only: %v", err))
	case strings.Contains(err.Error(), "request is too large"):
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%s %q is larger than the store takes (%v)", res.GroupResource(), name, err))
	}
	r.log.Error("the store refused a write", "verb", verb, "resource", res.GroupResource().String(), "name", name, "err", err)
	return apierrors.NewInternalError(fmt.Errorf("%s %s %q: %w", verb, res.GroupResource(), name, err))
}

func warn(ctx context.Context, res *api.Resource, obj, old api.Object, sub string) {
	warnings := res.Warnings
	switch sub {
	case "":
	case "status":
		warnings = res.StatusWarnings
	default:
		return
	}
	if warnings == nil {
		return
	}
	for _, w := range warnings(obj, old) {
		warning.AddWarning(ctx, "", w)
	}
}

// now is the present in the precision in which objects carry times. It follows the clock of a synctest bubble.
func now() time.Time { return time.Now().Truncate(time.Second) }
