// Package controlplane wires up the store, the front door, the controllers and the scheduler, and makes the objects that a cluster begins
// with. It has no network of its own: the HTTP server stands before it, agents behind its client.
//
// What flows through it: [New] builds a [Plane] over a backend; [Plane.Run] loads the copy, creates the initial objects and, while this
// server leads, runs controllers and scheduler under a fence. What must stay true: the list of controllers stands here alone; at any time
// at most one server's controllers and scheduler can write. Tests: TestNoTwoControllersSetTheSameField;
// TestFenceKeepsOutWhoLedBefore, TestOneOfManyLeaders (internal/store).
package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/apiservers"
	"github.com/knarr-io/knarr/internal/controller/apiservice"
	"github.com/knarr-io/knarr/internal/controller/attachdetach"
	"github.com/knarr-io/knarr/internal/controller/certificates"
	"github.com/knarr-io/knarr/internal/controller/clusterroleaggregation"
	crdcontroller "github.com/knarr-io/knarr/internal/controller/crd"
	"github.com/knarr-io/knarr/internal/controller/cronjob"
	"github.com/knarr-io/knarr/internal/controller/daemonset"
	"github.com/knarr-io/knarr/internal/controller/deployment"
	"github.com/knarr-io/knarr/internal/controller/disruption"
	"github.com/knarr-io/knarr/internal/controller/endpointslice"
	"github.com/knarr-io/knarr/internal/controller/ephemeralvolume"
	"github.com/knarr-io/knarr/internal/controller/eventttl"
	"github.com/knarr-io/knarr/internal/controller/flowcontrol"
	"github.com/knarr-io/knarr/internal/controller/frontproxy"
	"github.com/knarr-io/knarr/internal/controller/garbagecollector"
	"github.com/knarr-io/knarr/internal/controller/job"
	"github.com/knarr-io/knarr/internal/controller/namespace"
	"github.com/knarr-io/knarr/internal/controller/nodeipam"
	"github.com/knarr-io/knarr/internal/controller/nodelifecycle"
	"github.com/knarr-io/knarr/internal/controller/persistentvolume"
	"github.com/knarr-io/knarr/internal/controller/podautoscaler"
	"github.com/knarr-io/knarr/internal/controller/podcertificate"
	"github.com/knarr-io/knarr/internal/controller/podgc"
	"github.com/knarr-io/knarr/internal/controller/policycheck"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
	"github.com/knarr-io/knarr/internal/controller/resourceclaim"
	"github.com/knarr-io/knarr/internal/controller/resourcequota"
	"github.com/knarr-io/knarr/internal/controller/rootca"
	"github.com/knarr-io/knarr/internal/controller/serviceaccount"
	"github.com/knarr-io/knarr/internal/controller/servicecidr"
	"github.com/knarr-io/knarr/internal/controller/statefulset"
	"github.com/knarr-io/knarr/internal/controller/storagemigration"
	"github.com/knarr-io/knarr/internal/controller/storageprotection"
	"github.com/knarr-io/knarr/internal/controller/tokencleaner"
	"github.com/knarr-io/knarr/internal/controller/trustbundle"
	"github.com/knarr-io/knarr/internal/controller/ttlafterfinished"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/scheduler"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/admission/plugins"
	"github.com/knarr-io/knarr/internal/server/admission/webhook"
	"github.com/knarr-io/knarr/internal/server/aggregate"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/server/crd"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/usage"
	"github.com/knarr-io/knarr/internal/store"
)

// Config is what a control plane needs besides a place for its objects.
type Config struct {
	Backend     store.Backend
	ServiceCIDR netip.Prefix
	ClusterCIDR netip.Prefix
	// CA is the bundle that pods trust the API by.
	CA []byte
	// FrontProxy returns the certificate by which aggregated servers know this one; nil: it has none.
	FrontProxy func() *tls.Certificate
	// FrontProxyCA is the bundle by which aggregated servers know front proxies such as this server.
	FrontProxyCA []byte
	// Sign issues what CertificateSigningRequests ask for; nil leaves them unanswered.
	Sign certificates.Sign
	// Links tell of nodes that are lost within seconds; nil leaves that to their Leases.
	Links nodelifecycle.Links
	// Initial describes the objects that Bootstrap creates.
	Initial Params
	// Lead calls act whenever this server is the one to run the controllers and the scheduler, with a context that ends when it is no
	// longer; nil where there is no other server.
	Lead func(ctx context.Context, act func(ctx context.Context) error) error
	// Several tells whether other servers read and write the same objects; nil where there are none.
	Several func() bool
	// Name is this server's. Without one it does not register, and the endpoints of the API stay what Bootstrap makes them.
	Name string
	// Ask reads a document of this server's own API in a user's name, for autoscalers; nil leaves them without metrics.
	Ask func(ctx context.Context, who user.Info, path string, query url.Values) ([]byte, error)
	// Nodes returns the way to what a node answers for itself; nil: there is none.
	Nodes func(ctx context.Context, name string) (usage.Node, error)
	// Manifests are webhooks and policies from files; nil for none.
	Manifests *manifests.Files
	// Space says whether there is room for what is written; nil: always.
	Space registry.Space
	// Metrics is where the figures of what the leader runs are shown; nil shows them nowhere.
	Metrics prometheus.Registerer
	Log     *slog.Logger

	further []admission.Plugin // after the usual ones; for tests that look at who writes
}

// ControlPlane is the store, the front door, the controllers and the scheduler, wired up. It has no network of its own: the HTTP
// server is put before Registry, agents behind Client.
type Plane struct {
	Store    *store.Store
	Registry *registry.Registry
	Client   *client.Local
	RBAC     *authz.RBAC
	// Aggregator knows the servers of group-versions that this one does not serve.
	Aggregator *aggregate.Aggregator

	cfg   Config
	nodes authz.Authorizer
	ready chan struct{}
	// webhooks are asked about every write.
	webhooks *webhook.Webhooks
	// scheduling outlives the scheduler, which runs only while this server leads.
	scheduling *scheduler.Metrics
	queues     *controller.Metrics
	jobs       *job.Metrics
	cronJobs   *cronjob.Metrics
	autoscaled *podautoscaler.Metrics
}

// New wires up a control plane; Run makes it live.
func New(cfg Config) (*Plane, error) {
	if cfg.Lead == nil {
		cfg.Lead = func(ctx context.Context, act func(context.Context) error) error { return act(ctx) }
	}
	s := store.New(cfg.Backend, cfg.Log, registry.Specs(api.Builtin)...)
	s.SharedWith(cfg.Several)
	p := &Plane{Store: s, RBAC: authz.NewRBAC(), cfg: cfg, ready: make(chan struct{}), scheduling: scheduler.NewMetrics(cfg.Metrics), queues: controller.NewMetrics(),
		jobs: job.NewMetrics(cfg.Metrics), cronJobs: cronjob.NewMetrics(cfg.Metrics), autoscaled: podautoscaler.NewMetrics(cfg.Metrics)}
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(p.queues)
	}
	reader := registry.NewReader(s)
	var err error
	if p.nodes, err = authz.NewNode(reader); err != nil {
		return nil, fmt.Errorf("making the rules for nodes: %w", err)
	}
	p.Registry = registry.New(registry.Config{Store: s, ServiceCIDR: cfg.ServiceCIDR, Space: cfg.Space, Log: cfg.Log, Admission: func(front *registry.Registry) admission.Chain {
		quotas := client.NewLocal(front).As(apiServer)
		programs := &cel.Programs{}
		p.webhooks = webhook.New(webhook.Config{
			Store: s, Reader: reader, Served: front.Served(), Authorizer: p.Authorizer(), Programs: programs, Files: cfg.Manifests,
			Metrics: cfg.Metrics, Log: cfg.Log,
		})
		chain := plugins.Default(plugins.Config{
			Reader: reader, RBAC: p.RBAC, Authorizer: p.Authorizer(), Quotas: quotas, Configured: p.configured(front, reader, programs),
		})
		return append(chain, cfg.further...)
	}})
	p.Client = client.NewLocal(p.Registry).As(apiServer)
	p.Aggregator = aggregate.New(aggregate.Config{Store: s, FrontProxy: cfg.FrontProxy, Log: cfg.Log})
	return p, nil
}

// Authorizer decides what users, service accounts and nodes may do.
func (p *Plane) Authorizer() authz.Union {
	return authz.Union{authz.Masters{}, p.nodes, p.RBAC}
}

// CheckReady returns an error until the API can be served.
func (p *Plane) CheckReady(context.Context) error {
	select {
	case <-p.ready:
		return nil
	default:
		return errors.New("the initial objects are not there yet")
	}
}

// Ready is closed when the API can be served: the copy is loaded and the initial objects are there.
func (p *Plane) Ready() <-chan struct{} { return p.ready }

// Run runs the control plane until ctx ends.
func (p *Plane) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Store.Run(ctx) })
	g.Go(func() error { return p.cfg.Manifests.Run(ctx) })
	rbac, custom, others := make(chan struct{}), make(chan struct{}), make(chan struct{})
	g.Go(func() error { return p.Aggregator.Run(ctx, func() { close(others) }) })
	g.Go(func() error { return p.RBAC.Run(ctx, p.Store, func() { close(rbac) }) })
	g.Go(func() error {
		return crd.NewServer(p.Store, p.Registry, crd.Webhooks(p.Store), p.cfg.Log).Run(ctx, func() { close(custom) })
	})
	g.Go(func() error {
		for _, c := range []<-chan struct{}{p.Store.Ready(), rbac, custom, others} {
			select {
			case <-c:
			case <-ctx.Done():
				return nil
			}
		}
		if err := p.bootstrap(registry.Essential(ctx)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("creating the initial objects: %w", err)
		}
		p.webhooks.Serve()
		g.Go(func() error { return p.webhooks.Run(ctx, p.reportOutage) })
		close(p.ready)
		g.Go(func() error { return p.cfg.Lead(ctx, p.lead) })
		g.Go(func() error {
			return (&controller.Runner{Client: p.Client, Log: p.cfg.Log}).Run(ctx, p.everywhere()...)
		})
		if p.cfg.Name != "" {
			g.Go(func() error {
				return apiservers.Register(ctx, p.Client, apiservers.Server{Name: p.cfg.Name, Address: p.cfg.Initial.API, Several: p.cfg.Several, Log: p.cfg.Log})
			})
		}
		return nil
	})
	return g.Wait()
}

func (p *Plane) bootstrap(ctx context.Context) error {
	if err := plugins.BootstrapPriorityClasses(ctx, p.Client); err != nil {
		return err
	}
	if err := flowcontrol.Bootstrap(ctx, p.Client); err != nil {
		return fmt.Errorf("making the standard priority levels and flow schemas: %w", err)
	}
	initial := p.cfg.Initial
	initial.Several = p.cfg.Several != nil && p.cfg.Several()
	if err := Bootstrap(ctx, p.Client, initial); err != nil {
		return err
	}
	if err := localStorage(ctx, p.Client); err != nil {
		return fmt.Errorf("making the class of local volumes: %w", err)
	}
	if err := authz.Bootstrap(ctx, p.Client); err != nil {
		return err
	}
	return p.RBAC.Fresh(ctx, p.Store) // controllers write at once, as what these roles allow
}

// everywhere lists the controllers that every server runs, whether it leads or not: what they write depends on the server.
func (p *Plane) everywhere() []controller.Controller {
	return []controller.Controller{frontproxy.New(p.Client, frontproxy.Trust{
		ClientCA: p.cfg.CA, FrontProxyCA: p.cfg.FrontProxyCA, Names: []string{pki.FrontProxyName},
		Headers: frontproxy.Headers{User: authn.RemoteUser, UID: authn.RemoteUID, Group: authn.RemoteGroup, ExtraPrefix: authn.RemoteExtraPrefix},
	})}
}

// controllers lists every controller of the control plane that the leader runs, each with the identity that kube-controller-manager
// --use-service-account-credentials gives it.
func (p *Plane) controllers(c *client.Local) []controller.Controller {
	as := func(name string) *client.Local { return c.As(controllerAccount(name)) }
	all := []controller.Controller{
		clusterroleaggregation.New(as("clusterrole-aggregation-controller")),
		resourcequota.New(as("resourcequota-controller")),
		deployment.New(as("deployment-controller"), p.figures("deployment-controller")),
		replicaset.New(as("replicaset-controller")),
		replicaset.NewReplicationControllers(as("replication-controller")),
		statefulset.New(as("statefulset-controller")),
		daemonset.New(as("daemon-set-controller")),
		job.New(as("job-controller"), p.jobs),
		job.NewOrphans(as("job-controller")),
		cronjob.New(as("cronjob-controller"), p.cronJobs),
		resourceclaim.New(as("resource-claim-controller")),
		resourceclaim.NewUsers(as("resource-claim-controller")),
		persistentvolume.New(as("persistent-volume-binder")),
		persistentvolume.NewDirectories(as("persistent-volume-binder")),
		storageprotection.NewClaims(as("pvc-protection-controller")),
		storageprotection.NewVolumes(as("pv-protection-controller")),
		ephemeralvolume.New(as("ephemeral-volume-controller")),
		attachdetach.New(as("attachdetach-controller")),
		ttlafterfinished.New(as("ttl-after-finished-controller")),
		p.autoscaler(as(autoscalerAccount)),
		disruption.New(as("disruption-controller")),
		endpointslice.New(as("endpointslice-controller")),
		endpointslice.NewEndpoints(as("endpoint-controller")),
		endpointslice.NewMirror(as("endpointslicemirroring-controller")),
		namespace.New(as("namespace-controller"), func(ctx context.Context, name string) aggregate.Left {
			return p.Aggregator.Empty(ctx, controllerAccount("namespace-controller"), name)
		}),
		garbagecollector.New(as("generic-garbage-collector")),
		nodelifecycle.New(as("node-controller"), nodelifecycle.Config{Links: p.cfg.Links}),
		nodelifecycle.NewTaintEviction(as("taint-eviction-controller")),
		podgc.New(as("pod-garbage-collector"), 0),
		serviceaccount.New(as("service-account-controller")),
		rootca.New(as("root-ca-cert-publisher"), p.cfg.CA),
		trustbundle.New(as("kube-apiserver-serving-clustertrustbundle-publisher"), p.cfg.CA),
		podcertificate.New(as("podcertificaterequestcleaner")),
		storagemigration.New(as("storage-version-migrator-controller")),
		eventttl.New(as("event-ttl-controller"), 0),
		nodeipam.New(as("node-controller"), p.cfg.ClusterCIDR),
		tokencleaner.New(as("token-cleaner")),
		servicecidr.New(as("service-cidrs-controller")),
	}
	served := func() *api.Catalog { return p.Registry.Served().Now() }
	all = append(all, policycheck.New(as("validatingadmissionpolicy-status-controller"), served))
	definitions := crdcontroller.Config{Catalog: served, Several: p.cfg.Several}
	all = append(all, flowcontrol.New(c.As(apiServer)))
	all = append(all, crdcontroller.New(c.As(apiServer), definitions), crdcontroller.NewCleanup(c.As(apiServer), definitions))
	all = append(all, apiservice.NewRegistration(c.As(apiServer), groupVersions()), apiservice.NewAvailability(c.As(apiServer), p.Aggregator.Check))
	if p.cfg.Name != "" {
		all = append(all, apiservers.New(c.As(apiServer), p.cfg.Name, p.cfg.Initial.API))
	}
	if p.cfg.Sign != nil {
		all = append(all, certificates.New(as("certificate-controller"), p.Authorizer(), p.cfg.Sign))
	}
	return all
}

// autoscalerAccount is the service account of the controller of HorizontalPodAutoscalers.
const autoscalerAccount = "horizontal-pod-autoscaler"

func (p *Plane) autoscaler(c *client.Local) controller.Controller {
	cfg := podautoscaler.Config{Rescale: c.Rescale, Ask: p.figures(autoscalerAccount), Metrics: p.autoscaled}
	if p.cfg.Nodes != nil {
		foreign := func() bool { return p.Aggregator.Handler(usage.GroupVersion) != nil }
		cfg.Feed = usage.NewFeed(usage.FeedConfig{Node: p.cfg.Nodes, Foreign: foreign, Log: p.cfg.Log})
	}
	return podautoscaler.New(c, cfg)
}

// figures returns how a controller asks the metrics APIs, as its service account; nil where there are none.
func (p *Plane) figures(account string) func(ctx context.Context, path string, query url.Values) ([]byte, error) {
	if p.cfg.Ask == nil {
		return nil
	}
	return func(ctx context.Context, path string, query url.Values) ([]byte, error) {
		return p.cfg.Ask(ctx, controllerAccount(account), path, query)
	}
}
