// Package apiservers keeps the endpoints of Service default/kubernetes: the addresses of the servers that are there.
//
// What flows through it: each server renews a Lease of its own in kube-system ([Register]), as kube-apiserver does (KEP-1965); the leader's
// controller puts the addresses of those that are renewed into EndpointSlice and Endpoints default/kubernetes, from which pods, agents and clients
// learn them. What must stay true: the leader's own address is always among them; a Lease's time is measured from when its change was seen
// here, so that clocks need not agree; nothing is renewed where there is only one server. Tests: TestServersComeAndGo,
// TestNewLeaderGivesOthersTime.
package apiservers

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

const (
	// identityLabel marks the Leases of servers, with kube-apiserver's value.
	identityLabel = "apiserver.kubernetes.io/identity"
	identityValue = "kube-apiserver"
	// addressAnnotation is where the server's API is reached, as ADDRESS:PORT.
	addressAnnotation = "knarr.io/api-address"

	renewEvery   = 2 * time.Second
	leaseSeconds = 6
)

// LeaseKey names the Lease of a server.
func LeaseKey(server string) api.Key {
	return api.Key{Namespace: metav1.NamespaceSystem, Name: "apiserver-" + server}
}

// Server is who registers.
type Server struct {
	Name    string
	Address netip.AddrPort
	// Several reports whether there are other servers; while there are none nothing is renewed. nil means never.
	Several func() bool
	Log     *slog.Logger
}

// Register keeps s's Lease until ctx ends.
func Register(ctx context.Context, c client.Client, s Server) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	told, fresh := false, false
	for {
		if !fresh || s.Several != nil && s.Several() {
			err := s.renew(ctx, c, time.Now())
			if err != nil && ctx.Err() == nil && !told {
				s.Log.Warn("this server's Lease was not renewed, trying again", "err", err)
			}
			fresh, told = err == nil, err != nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s Server) renew(ctx context.Context, c client.Client, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, leaseSeconds*time.Second)
	defer cancel()
	key := LeaseKey(s.Name)
	_, err := client.Mutate(ctx, c, key, "", func(l *coordinationv1.Lease) bool {
		s.fill(l, now)
		return true
	})
	if !apierrors.IsNotFound(err) {
		return err
	}
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	s.fill(l, now)
	_, err = c.Create(ctx, l)
	return err
}

func (s Server) fill(l *coordinationv1.Lease, now time.Time) {
	seconds, renewed := int32(leaseSeconds), metav1.NewMicroTime(now)
	set := func(m *map[string]string, k, v string) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[k] = v
	}
	set(&l.Labels, identityLabel, identityValue)
	set(&l.Labels, corev1.LabelHostname, s.Name)
	set(&l.Annotations, addressAnnotation, s.Address.String())
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &s.Name, &seconds, &renewed
}
