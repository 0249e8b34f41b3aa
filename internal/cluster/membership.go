package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/pki"
)

// Membership is what a server that joined others keeps of that, in its data directory. The first server of a cluster has none.
type Membership struct {
	// Name is this server's among the others.
	Name string `json:"name,omitempty"`
	// Server is the one that let this one in.
	Server string `json:"server"`
	// Settings are the cluster's.
	Settings map[string]string `json:"settings"`
	// Etcd is what etcd has to know until it has started once (EtcdConfig.Join); empty from then on.
	Etcd string `json:"etcd,omitempty"`
	// ExternalEtcd tells that there is no etcd here.
	ExternalEtcd bool `json:"externalEtcd,omitempty"`

	path string
}

func membershipPath(dataDir string) string { return filepath.Join(dataDir, "server.json") }

// LoadMembership returns the Membership of a data directory, nil where it is no server's that joined others.
func LoadMembership(dataDir string) (*Membership, error) {
	path := membershipPath(dataDir)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading how this server joined the others: %w", err)
	}
	m := &Membership{path: path}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return m, nil
}

// Begun tells that joining was begun and not completed.
func (m *Membership) Begun() bool { return m.Etcd != "" }

// Started notes that this server's etcd is a member by its own data from now on.
func (m *Membership) Started() error {
	m.Etcd = ""
	return m.save()
}

func (m *Membership) save() error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(m.path, append(b, '\n'), 0o600)
}

// Join makes the server of dataDir one of the cluster at server: it gets the cluster's keys and settings, and is a learner of its etcd unless the
// request says that etcd is elsewhere. What an earlier attempt left is replaced.
func Join(ctx context.Context, dataDir, server string, token join.Token, req JoinRequest) (*Membership, error) {
	var reply JoinReply
	if err := join.Post(ctx, server, token, ServersPath, req, &reply); err != nil {
		return nil, err
	}
	if _, err := ParseAgentSettings(reply.Settings); err != nil {
		return nil, err
	}
	if err := pki.Install(PKIDir(dataDir), reply.Keys); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(EtcdDir(dataDir)); err != nil {
		return nil, fmt.Errorf("removing what an earlier attempt to join left: %w", err)
	}
	m := &Membership{Name: req.Name, Server: server, Settings: reply.Settings, Etcd: reply.Etcd, ExternalEtcd: req.ExternalEtcd, path: membershipPath(dataDir)}
	return m, m.save()
}
