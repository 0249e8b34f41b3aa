package main

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authn"
)

// machine is this machine as a node: runtime, network, DNS and agent.
type machine struct{}

func (s *server) newNode(*cluster.ControlPlane, *authn.Tokens) *machine { return &machine{} }

func (m *machine) streams(_ context.Context, node string) (server.Streams, error) {
	return nil, apierrors.NewServiceUnavailable("node " + node + " is not connected")
}

func (m *machine) run(ctx context.Context) error { return nil }
