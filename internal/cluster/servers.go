package cluster

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/apiservers"
	"github.com/knarr-io/knarr/internal/pki"
)

// ServersPath is where servers join (POST, with a token of the group that ClusterRole knarr:server-bootstrapper is bound to), and where the
// administrator lists (GET) and removes (DELETE PATH/NAME) them.
const ServersPath = "/knarr/v1/servers"

// JoinRequest is what a machine tells that wants to be a server.
type JoinRequest struct {
	// Name is its name among the servers; URL is where the others reach its API.
	Name string `json:"name"`
	URL  string `json:"url"`
	// ExternalEtcd tells that it has been given the address of an etcd, and needs no membership in one.
	ExternalEtcd bool `json:"externalEtcd,omitempty"`
	// Settings are those (of AgentSettings.Data) that it was given explicitly; they must be the cluster's.
	Settings map[string]string `json:"settings,omitempty"`
}

// JoinReply makes it one.
type JoinReply struct {
	Keys pki.Shared `json:"keys"`
	// Settings are those of AgentSettings.
	Settings map[string]string `json:"settings"`
	// Etcd is what its etcd has to know at its first start (EtcdConfig.Join).
	Etcd string `json:"etcd,omitempty"`
}

// MemberList is the answer to GET.
type MemberList struct {
	Items []Member `json:"items"`
}

// Servers answers requests about the servers of the cluster.
type Servers struct {
	Etcd     *Etcd // nil where etcd is elsewhere
	Keys     *pki.PKI
	Settings AgentSettings
	// Client is for what the API knows about servers.
	Client client.Client
}

// Handlers are the paths and what answers them, for the API server, which finds out who asks.
func (s *Servers) Handlers() map[string]func(http.ResponseWriter, *http.Request) error {
	return map[string]func(http.ResponseWriter, *http.Request) error{ServersPath: s.all, ServersPath + "/": s.one}
}

func (s *Servers) all(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodPost:
		reply, err := s.join(w, r)
		if err != nil {
			return err
		}
		return answer(w, reply)
	case http.MethodGet:
		if s.Etcd == nil {
			return errExternal()
		}
		members, err := s.Etcd.Members(r.Context())
		if err != nil {
			return err
		}
		return answer(w, MemberList{members})
	}
	return apierrors.NewMethodNotSupported(serversResource, strings.ToLower(r.Method))
}

func (s *Servers) one(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodDelete {
		return apierrors.NewMethodNotSupported(serversResource, strings.ToLower(r.Method))
	}
	if s.Etcd == nil {
		return errExternal()
	}
	gone, err := s.Etcd.RemoveMember(r.Context(), strings.TrimPrefix(r.URL.Path, ServersPath+"/"))
	if err != nil {
		return err
	}
	// Its address is gone from the endpoints of the API at once. If this fails, that happens when its time is over.
	_ = s.Client.Delete(r.Context(), api.Leases, apiservers.LeaseKey(gone.Name), metav1.DeleteOptions{})
	return answer(w, gone)
}

// errExternal: servers that share an etcd of somebody else's are no members of anything.
func errExternal() error {
	return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: "servers of a cluster with an external etcd"}, "list or remove")
}

func (s *Servers) join(w http.ResponseWriter, r *http.Request) (*JoinReply, error) {
	const most = 1 << 16
	var req JoinRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, most)).Decode(&req); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the request to join: %v", err))
	}
	if req.Name == "" || strings.ContainsAny(req.Name, "=,") {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("name %q: want a name without = and ,", req.Name))
	}
	u, err := url.Parse(req.URL)
	if err != nil || u.Scheme != "https" || u.Path != "" || u.Port() == "" || net.ParseIP(u.Hostname()) == nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("url %q: want https://ADDRESS:PORT", req.URL))
	}
	if req.ExternalEtcd != (s.Etcd == nil) {
		have := "this cluster keeps its data in etcd on its own servers: join without --etcd-endpoints"
		if s.Etcd == nil {
			have = "this cluster keeps its data in an external etcd: join with the same --etcd-endpoints as the other servers"
		}
		return nil, apierrors.NewBadRequest(have)
	}
	if err := Agree(req.Settings, s.Settings.Data()); err != nil {
		return nil, apierrors.NewConflict(serversResource, req.Name, err)
	}
	keys, err := s.Keys.Shared()
	if err != nil {
		return nil, err
	}
	reply := &JoinReply{Keys: keys, Settings: s.Settings.Data()}
	if s.Etcd != nil {
		if reply.Etcd, err = s.Etcd.AddMember(r.Context(), req.Name, req.URL); err != nil {
			return nil, err
		}
	}
	return reply, nil
}

// settingFlags are the flags of the settings that all machines of a cluster share, by their names in AgentSettings.Data.
var settingFlags = [...]struct{ setting, flag string }{
	{"clusterCIDR", "cluster-cidr"}, {"serviceCIDR", "service-cidr"}, {"clusterDNS", "cluster-dns"}, {"clusterDomain", "cluster-domain"}, {"overlay", "overlay"},
}

// Given returns those settings of s whose flags were given.
func (s AgentSettings) Given(given func(flag string) bool) map[string]string {
	out, all := map[string]string{}, s.Data()
	for _, f := range settingFlags {
		if given(f.flag) {
			out[f.setting] = all[f.setting]
		}
	}
	return out
}

// Agree returns an error that names the flag where one of the given settings is not those that the cluster had when it was joined.
func (m *Membership) Agree(given map[string]string) error { return Agree(given, m.Settings) }

// Agree returns an error that names the flag where one of the given settings is not the cluster's.
func Agree(given, cluster map[string]string) error {
	for _, f := range settingFlags {
		if v, ok := given[f.setting]; ok && v != cluster[f.setting] {
			return fmt.Errorf("--%s %s: the cluster has %q, which is the same on all of its machines: leave the flag out", f.flag, v, cluster[f.setting])
		}
	}
	return nil
}

func answer(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b) // a client that went away has no use for the error
	return nil
}
