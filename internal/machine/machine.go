// Package machine is what one machine runs, wired up: as a server the control plane with its datastore, keys and API; as a node the
// container runtime, the pod network, DNS and the agent.
//
// What flows through it: [ServerOptions] or [AgentOptions] are checked and completed before anything is made; [RunServer] and [RunAgent]
// are the life of the process. What must stay true: every part is a Run that ends with the context; whatever a part needs from another
// one is handed over here and nowhere else. Tests: TestScripts (cmd/knarr).
package machine

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/dns"
	"github.com/knarr-io/knarr/internal/network"
	"github.com/knarr-io/knarr/internal/network/cni"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/node/command"
	"github.com/knarr-io/knarr/internal/node/containerd"
	"github.com/knarr-io/knarr/internal/node/kubelet"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/pki"
	apiserver "github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/review"
)

// host is what this machine is as a node, of its own server or of another machine's.
type host struct {
	dataDir, nodeName, domain string
	criEndpoint, libexec      string
	nodeAddr, dnsAddr         netip.Addr
	clusterNet, serviceNet    netip.Prefix
	overlayMode               overlay.Mode
	upstreamDNS               []string
	maxPods, kubeletPort      int
	log                       *slog.Logger
}

// machine is this machine as a node: runtime, network, DNS and agent.
type machine struct {
	host
	client client.Client
	tokens node.TokenRequester
	// reviewer and authorities say who may use the kubelet port.
	reviewer    kubelet.Reviewer
	authorities *x509.CertPool
	// deleted is called when the node's object has been deleted; nil registers the node again.
	deleted func()
	// joined is true on a machine that is no server: its agent's connections with servers say whether it lives.
	joined bool
	// links tells the agent that a connection with a server was lost or is back.
	links chan struct{}
	agent atomic.Pointer[node.Agent]
	// figures are those of network, DNS and the client of the API, which the agent shows.
	figures *prometheus.Registry
}

func (s *server) newMachine(plane *controlplane.Plane, tokens *authn.Tokens, keys *pki.PKI) *machine {
	return &machine{client: plane.NodeClient(s.NodeName), figures: prometheus.NewRegistry(), tokens: requestToken(tokens), links: make(chan struct{}, 1),
		reviewer: review.New(review.Config{Tokens: tokens, Authorizer: plane.Authorizer()}), authorities: keys.Pool(), host: host{
			dataDir: s.DataDir, nodeName: s.NodeName, domain: s.ClusterDomain, criEndpoint: s.CRIEndpoint, libexec: s.Libexec,
			nodeAddr: s.nodeAddr, dnsAddr: s.dnsAddr, clusterNet: s.clusterNet, serviceNet: s.serviceNet, overlayMode: s.overlayMode,
			upstreamDNS: s.UpstreamDNS, maxPods: s.MaxPods, kubeletPort: s.KubeletPort, log: s.log,
		}}
}

// hasten lets the agent show that this machine lives.
func (m *machine) hasten() {
	select {
	case m.links <- struct{}{}:
	default: // it has not come to it yet
	}
}

var _ apiserver.DialledStreams = (*node.Agent)(nil)

// run is the node's life.
func (m *machine) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	endpoint := m.criEndpoint
	if endpoint == "" {
		supervisor, err := containerd.New(containerd.Options{DataDir: m.dataDir, Libexec: m.libexec, LeaveRunning: true, Logger: m.log})
		if err != nil {
			return fmt.Errorf("preparing the container runtime: %w", err)
		}
		endpoint = supervisor.Endpoint()
		g.Go(func() error { return supervisor.Run(ctx) })
		g.Go(func() error {
			if err := supervisor.WaitReady(ctx); err != nil {
				return ignoreCancelled(ctx, err)
			}
			return m.runOn(ctx, endpoint, supervisor.StreamCertificate)
		})
		return g.Wait()
	}
	return m.runOn(ctx, endpoint, nil)
}

// checkRuntime finds out before anything is made whether the runtime that comes with Knarr can be set up, if it is the one to use.
func checkRuntime(criEndpoint, dataDir, libexec string) error {
	if criEndpoint != "" {
		return nil
	}
	if err := containerd.Check(dataDir, libexec); err != nil {
		return fmt.Errorf("the container runtime: %w", err)
	}
	return nil
}

func ignoreCancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// openRuntime connects to a runtime; own is the one that comes with Knarr, in which commands are run as package command says.
func (m *machine) openRuntime(endpoint string, own bool) (rt runtime.Runtime, closeAll func(), err error) {
	c, err := runtime.NewCRI(endpoint)
	if err != nil {
		return nil, nil, err
	}
	if !own {
		return c, func() { c.Close() }, nil
	}
	commands, err := command.Open(c, endpoint, filepath.Join(m.dataDir, "commands"), m.log)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return commands, func() {
		if err := commands.Close(); err != nil {
			m.log.Warn("closing the connection to containerd", "err", err)
		}
		c.Close()
	}, nil
}

// runOn runs agent, network and DNS over a runtime that answers. streams is the certificate of its streaming server, where known.
func (m *machine) runOn(ctx context.Context, endpoint string, streams func() *x509.Certificate) error {
	rt, closeRuntime, err := m.openRuntime(endpoint, streams != nil)
	if err != nil {
		return fmt.Errorf("the container runtime at %s: %w", endpoint, err)
	}
	defer closeRuntime()
	pause := "" // what another's runtime uses is not known
	if streams != nil {
		pause = containerd.PauseImage
	}
	agent, err := node.New(node.Config{
		NodeName: m.nodeName, DataDir: m.dataDir, Client: m.client, Runtime: rt, StreamCertificate: streams, Metrics: m.figures, Tokens: m.tokens, Deleted: m.deleted, Linked: m.joined,
		ClusterDNS: []string{m.dnsAddr.String()}, ClusterDomain: m.domain, NodeIPs: []string{m.nodeAddr.String()},
		CgroupRoot: cluster.CgroupRoot(m.instance()), MaxPods: m.maxPods, KubeletPort: m.kubeletPort, Version: KubernetesVersion().GitVersion, Logger: m.log,
		PauseImage: pause,
	})
	if err != nil {
		return err
	}
	m.agent.Store(agent)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return agent.Run(ctx) })
	g.Go(func() error { agent.Hasten(ctx, m.links); return nil })
	if m.kubeletPort != 0 {
		port := kubelet.New(kubelet.Config{
			Address: netip.AddrPortFrom(m.nodeAddr, uint16(m.kubeletPort)), Node: m.nodeName, Answer: http.HandlerFunc(agent.ServeNode),
			Clients: m.authorities, Reviewer: m.reviewer, Log: m.log,
		})
		g.Go(func() error { return port.Run(ctx) })
	}
	g.Go(func() error { return ignoreCancelled(ctx, m.runNetwork(ctx, rt, m.figures)) })
	return g.Wait()
}

func (h *host) instance() string { return cluster.Instance(h.dataDir) }

// runNetwork runs the pod network and DNS once the node knows its addresses.
func (m *machine) runNetwork(ctx context.Context, rt runtime.Runtime, figures prometheus.Registerer) error {
	pods, err := m.podCIDR(ctx)
	if err != nil {
		return err
	}
	net, err := network.New(network.Config{
		Instance: m.instance(), DataDir: m.dataDir, NodeName: m.nodeName, NodeIP: m.nodeAddr,
		PodCIDR: pods, ClusterCIDR: m.clusterNet, ServiceCIDR: m.serviceNet, ClusterDNS: m.dnsAddr, Mode: m.overlayMode,
		Client: m.client, Metrics: figures, Log: m.log,
	})
	if err != nil {
		return err
	}
	names, err := dns.New(dns.Config{
		Listen: []netip.AddrPort{netip.AddrPortFrom(m.dnsAddr, 53)}, Zone: m.domain,
		Reverse: []netip.Prefix{m.serviceNet, m.clusterNet}, Upstreams: m.upstreamDNS, Client: m.client, Metrics: figures, Log: m.log,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return net.Run(ctx) })
	g.Go(func() error {
		select {
		case <-net.Up():
		case <-ctx.Done():
			return nil
		}
		// The runtime may call the CNI plugin from now on.
		if err := network.WriteConfig(m.dataDir, m.instance()); err != nil {
			return err
		}
		if err := m.reclaim(ctx, net, rt); err != nil {
			m.log.Warn("pod links and addresses of an earlier run could not all be freed", "err", err)
		}
		g.Go(func() error {
			return net.WatchLinks(ctx, func(l cni.Lost) { m.linkLost(ctx, l) })
		})
		return names.Run(ctx)
	})
	return g.Wait()
}

// linkLost says that somebody deleted the link of a pod. Where it could not be made anew, the sandbox is ended: the agent makes another.
func (m *machine) linkLost(ctx context.Context, l cni.Lost) {
	log := m.log.With("namespace", l.PodNamespace, "pod", l.PodName, "address", l.Addr, "sandbox", l.ContainerID)
	if l.Err == nil {
		log.Warn("somebody deleted the network link of a pod; it was made anew", "link", l.Link)
		m.agent.Load().LinkLost(ctx, l.ContainerID, nil)
		return
	}
	log.Warn("somebody deleted the network link of a pod, which gets a new sandbox", "link", l.Link, "err", l.Err)
	m.agent.Load().LinkLost(ctx, l.ContainerID, l.Err)
}

// reclaim frees the links and addresses of pods that ended while nobody looked.
func (m *machine) reclaim(ctx context.Context, net *network.Node, rt runtime.Runtime) error {
	sandboxes, err := rt.ListPodSandbox(ctx, &cri.PodSandboxFilter{})
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, s := range sandboxes {
		live[s.Id] = true
	}
	return net.Reclaim(ctx, live)
}

// podCIDR waits for the addresses that the control plane gives this node.
func (m *machine) podCIDR(ctx context.Context) (netip.Prefix, error) {
	n, err := client.Await(ctx, m.client, api.Key{Name: m.nodeName}, func(n *corev1.Node) (bool, error) { return n != nil && n.Spec.PodCIDR != "", nil })
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(n.Spec.PodCIDR)
	if err != nil {
		return p, fmt.Errorf("node %s has an unusable spec.podCIDR: %w", n.Name, err)
	}
	return p, nil
}

// requestToken signs tokens for pods, as the serviceaccounts/token subresource does for agents elsewhere.
func requestToken(tokens *authn.Tokens) node.TokenRequester {
	return func(ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		out, err := tokens.TokenRequest(api.Key{Namespace: namespace, Name: account}, req)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("a token for service account %s/%s", namespace, account), err)
		}
		return out, nil
	}
}
