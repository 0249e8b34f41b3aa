package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/pki"
)

// datastore is where the cluster's objects are: an etcd in this process, or one that somebody else runs.
type datastore interface {
	Client() *clientv3.Client
	Contact() *cluster.Contact
	Several() bool
	Leader() (changed <-chan struct{}, several bool)
	Lead(ctx context.Context, act func(ctx context.Context) error) error
	WaitReady(ctx context.Context) error
	Run(ctx context.Context) error
	Close()
}

// joinTries is how often joining is tried again.
const joinTries = 5

// openData opens the datastore. An etcd that has just joined others is a member by its own data from then on.
func (s *server) openData(ctx context.Context, keys *pki.PKI, m *cluster.Membership) (datastore, error) {
	if len(s.EtcdEndpoints) > 0 {
		return cluster.OpenExternal(cluster.ExternalConfig{
			Endpoints: s.EtcdEndpoints, CAFile: s.EtcdCAFile, CertFile: s.EtcdCertFile, KeyFile: s.EtcdKeyFile, Name: s.NodeName, Log: s.log,
		})
	}
	cfg := cluster.EtcdConfig{
		Dir: cluster.EtcdDir(s.DataDir), Name: s.NodeName, PeerURL: "https://" + s.reached().String(), Peer: keys.PeerFiles(), Log: s.log,
	}
	if m != nil {
		cfg.Join = m.Etcd
	}
	etcd, err := cluster.OpenEtcd(cfg)
	for try := 0; err != nil && m != nil && m.Begun() && s.Token != "" && try < joinTries && ctx.Err() == nil; try++ {
		// The list of members may have changed since: other servers join, too.
		s.log.Warn("joining once more", "err", err)
		if m, err = s.joinOthers(ctx, m); err == nil {
			cfg.Join = m.Etcd
			etcd, err = cluster.OpenEtcd(cfg)
		}
	}
	if err != nil {
		return nil, err
	}
	if m != nil && m.Begun() {
		if err := m.Started(); err != nil {
			etcd.Close()
			return nil, err
		}
		s.log.Info("joined the cluster as a further server", "through", m.Server)
	}
	return etcd, nil
}

// reached is where other machines and pods reach this server's API.
func (s *server) reached() netip.AddrPort { return netip.AddrPortFrom(s.nodeAddr, s.listenAddr.Port()) }

// settings are those that all machines of the cluster share.
func (s *server) settings() cluster.AgentSettings {
	return cluster.AgentSettings{
		ClusterCIDR: s.clusterNet, ServiceCIDR: s.serviceNet, ClusterDNS: s.dnsAddr, ClusterDomain: s.ClusterDomain, Overlay: string(s.overlayMode),
	}
}

// membership finds out whether this server is one that joined others, or joins them now; nil means that it is a cluster's first. The cluster's
// settings are taken over.
func (s *server) membership(ctx context.Context) (*cluster.Membership, error) {
	m, err := cluster.LoadMembership(s.DataDir)
	if err != nil {
		return nil, err
	}
	if m == nil || m.Begun() {
		if m, err = s.joinOthers(ctx, m); m == nil || err != nil {
			return nil, err
		}
	}
	if m.ExternalEtcd != (len(s.EtcdEndpoints) > 0) {
		return nil, fmt.Errorf("this server joined a cluster with external etcd: %v; start it with the same --etcd-endpoints as then", m.ExternalEtcd)
	}
	return m, s.adopt(m)
}

// joinOthers joins the cluster of --join, if there is one. begun is an attempt that was not completed.
func (s *server) joinOthers(ctx context.Context, begun *cluster.Membership) (*cluster.Membership, error) {
	switch {
	case s.Join == "" && begun != nil:
		return nil, fmt.Errorf("this server has begun to join the cluster at %s and has not got to the end: start it with --join and --token again, or run knarr down --delete-data", begun.Server)
	case s.Join == "":
		return nil, nil
	case s.Token == "":
		return nil, errors.New("--join needs --token, which knarr token create --server on a server prints")
	}
	if begun == nil {
		if _, err := os.Stat(cluster.EtcdDir(s.DataDir)); err == nil {
			return nil, fmt.Errorf("%s has the data of a cluster of its own: leave out --join, or run knarr down --delete-data first", s.DataDir)
		}
	}
	token, err := join.ParseToken(s.Token)
	if err != nil {
		return nil, fmt.Errorf("--token: %w", err)
	}
	return cluster.Join(ctx, s.DataDir, s.Join, token, cluster.JoinRequest{
		Name: s.NodeName, URL: "https://" + s.reached().String(), ExternalEtcd: len(s.EtcdEndpoints) > 0, Settings: s.settings().Given(s.Given),
	})
}

// adopt takes over the cluster's settings. A flag that says otherwise is an error.
func (s *server) adopt(m *cluster.Membership) error {
	theirs, err := cluster.ParseAgentSettings(m.Settings)
	if err != nil {
		return fmt.Errorf("the cluster's settings: %w", err)
	}
	mode, err := overlay.ParseMode(theirs.Overlay)
	if err != nil {
		return fmt.Errorf("the cluster's settings: %w", err)
	}
	if err := m.Agree(s.settings().Given(s.Given)); err != nil {
		return err
	}
	s.clusterNet, s.serviceNet, s.dnsAddr, s.ClusterDomain, s.overlayMode = theirs.ClusterCIDR, theirs.ServiceCIDR, theirs.ClusterDNS, theirs.ClusterDomain, mode
	return nil
}

// checkData is the health check of the datastore: what it has last confirmed is in the copy.
func checkData(data datastore, plane *controlplane.Plane) func(context.Context) error {
	const patience = 2 * time.Second
	return func(ctx context.Context) error {
		if _, err := data.Contact().Epoch(); err != nil {
			return err
		}
		if err := plane.CheckReady(ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return plane.Store.Sync(ctx)
	}
}
