package server

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/aggregate"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/connect"
	"github.com/knarr-io/knarr/internal/server/fair"
	"github.com/knarr-io/knarr/internal/server/gate"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/route"
	"github.com/knarr-io/knarr/internal/server/verbs"
)

// Config is what a server works with. Registry, Authenticator and Authorizer are required.
type Config struct {
	Registry      *registry.Registry
	Authenticator authn.Authenticator
	// Tokens answers TokenReviews; nil refuses every token.
	Tokens authn.TokenAuthenticator
	// Authorizer decides about every request but health. If it is an authz.RuleResolver as well, SelfSubjectRulesReviews
	// are answered from it.
	Authorizer authz.Authorizer
	// Issuer signs service account tokens; nil answers TokenRequests with 503.
	Issuer verbs.TokenIssuer
	// Streams returns the way to the containers of a node; nil answers logs, exec, attach and port-forward with 503.
	Streams func(ctx context.Context, node string) (Streams, error)
	// Aggregator knows the servers of group-versions that this one does not serve; nil: there are none.
	Aggregator *aggregate.Aggregator
	// Dial connects to a pod's address for the proxy subresources; nil means the network of this machine.
	Dial connect.DialFunc

	Version version.Info
	// Address is the host:port that /api names.
	Address string
	// Ready are the checks of /readyz, in order. /livez and /healthz report that the process answers.
	Ready []Check
	// Documents are further paths with fixed JSON content, such as /openid/v1/jwks; they need authorization like any other.
	Documents map[string]func() ([]byte, error)
	// Handlers answer further paths, and those below them where a path ends in "/", whatever the method; they need authorization like any
	// other path outside resources. An error is answered as an API status.
	Handlers map[string]func(w http.ResponseWriter, r *http.Request) error

	// Seats is how many requests are served at a time, not counting exempt ones, watches and streams; 0 means gate.Seats.
	Seats int
	// Metrics is the registry behind /metrics, to which others add their figures; nil stands for one of the server's own.
	Metrics *prometheus.Registry
	Log     *slog.Logger
}

// Check is one line of /readyz.
type Check = gate.Check

// Streams is the way to the containers of one node.
type Streams = connect.Streams

// DialledStreams are Streams that connect to their URLs themselves.
type DialledStreams = connect.DialledStreams

// Server is the API over HTTP.
type Server struct{ gate *gate.Gate }

// New returns the API as an http.Handler.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:6443"
	}
	table := &route.Table{}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	fairness := fair.New(fair.Config{
		Seats: cmp.Or(cfg.Seats, gate.Seats), Metrics: cfg.Metrics,
		Schemas: cfg.Registry.Table(api.FlowSchemas), Levels: cfg.Registry.Table(api.PriorityLevelConfigurations),
	})
	g := gate.New(gate.Config{
		Authenticator: cfg.Authenticator, Authorizer: cfg.Authorizer, Ready: cfg.Ready, Fairness: fairness, Sizes: newSizes(cfg.Registry),
		Metrics: cfg.Metrics, Served: cfg.Registry.Served().Now, Next: table.Serve, Log: cfg.Log,
	})
	cfg.Metrics.MustRegister(objectCounts{cfg.Registry}, built(cfg.Version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	*table = routes(cfg, g, fairness)
	return &Server{gate: g}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.gate.ServeHTTP(w, r) }

// HTTPServer returns an http.Server for h with the limits that a public API needs. Watches and streams may last, so there
// is no bound on writing an answer.
func HTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    1 << 20,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 30 * time.Second, PingTimeout: 30 * time.Second},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
