package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/cluster"
)

// Params are what the initial objects depend on.
type Params struct {
	ServiceCIDR netip.Prefix
	ClusterDNS  netip.Addr     // the cluster IP of kube-system/kube-dns
	API         netip.AddrPort // where this server's API is reached by pods
	// Agents is what machines that join have to know; the zero value where none ever will.
	Agents cluster.AgentSettings
	// Several tells that there are other servers: what describes all of them is not this one's to change.
	Several bool
}

// FirstServiceIP is the cluster IP of the Service default/kubernetes.
func FirstServiceIP(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }

// Bootstrap creates the objects that every cluster has from the beginning, and brings those that describe this server up to date.
func Bootstrap(ctx context.Context, c client.Client, p Params) error {
	var objs []api.Object
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		objs = append(objs, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	objs = append(objs,
		&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{p.ServiceCIDR.String()}}},
		kubernetesService(p), dnsService(p), kubernetesSlice(p), kubernetesEndpoints(p))
	if p.Agents.ClusterCIDR.IsValid() {
		objs = append(objs, p.Agents.ConfigMap())
	}
	for _, obj := range objs {
		if _, err := c.Create(ctx, obj); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating %T %s: %w", obj, api.KeyOf(obj), err)
		}
	}
	if !p.Several {
		if err := describeServer(ctx, c, p); err != nil {
			return err
		}
	}
	return applySettings(ctx, c, p)
}

// describeServer makes this server the one of the endpoints of the API.
func describeServer(ctx context.Context, c client.Client, p Params) error {
	want := kubernetesSlice(p)
	_, err := client.Mutate(ctx, c, api.KeyOf(want), "", func(s *discoveryv1.EndpointSlice) bool {
		if equality.Semantic.DeepEqual(s.Endpoints, want.Endpoints) && equality.Semantic.DeepEqual(s.Ports, want.Ports) {
			return false
		}
		s.Endpoints, s.Ports = want.Endpoints, want.Ports
		return true
	})
	if err != nil {
		return fmt.Errorf("updating the endpoints of the API: %w", err)
	}
	old := kubernetesEndpoints(p)
	_, err = client.Mutate(ctx, c, api.KeyOf(old), "", func(e *corev1.Endpoints) bool {
		if equality.Semantic.DeepEqual(e.Subsets, old.Subsets) {
			return false
		}
		e.Subsets = old.Subsets
		return true
	})
	if err != nil {
		return fmt.Errorf("updating the endpoints of the API: %w", err)
	}
	return nil
}

// applySettings writes the settings of agents. Where there are several servers they have to be what they were.
func applySettings(ctx context.Context, c client.Client, p Params) error {
	if !p.Agents.ClusterCIDR.IsValid() {
		return nil
	}
	settings := p.Agents.ConfigMap()
	var contradicts error
	_, err := client.Mutate(ctx, c, api.KeyOf(settings), "", func(cm *corev1.ConfigMap) bool {
		if maps.Equal(cm.Data, settings.Data) {
			return false
		}
		if p.Several {
			if contradicts = cluster.Agree(settings.Data, cm.Data); contradicts != nil {
				return false
			}
		}
		cm.Data = settings.Data
		return true
	})
	if err := errors.Join(err, contradicts); err != nil {
		return fmt.Errorf("the settings that all machines share: %w", err)
	}
	return nil
}

func kubernetesService(p Params) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: FirstServiceIP(p.ServiceCIDR).String(),
			Ports:     []corev1.ServicePort{{Name: "https", Port: 443, TargetPort: intstr.FromInt32(int32(p.API.Port()))}},
		},
	}
}

func kubernetesSlice(p Params) *discoveryv1.EndpointSlice {
	name, port, tcp, ready := "https", int32(p.API.Port()), corev1.ProtocolTCP, true
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{p.API.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
	}
}

// kubernetesEndpoints says the same in the older form, which clients still read. The slice is not made from it, so it is not mirrored.
func kubernetesEndpoints(p Params) *corev1.Endpoints {
	return &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: p.API.Addr().String()}},
			Ports:     []corev1.EndpointPort{{Name: "https", Port: int32(p.API.Port()), Protocol: corev1.ProtocolTCP}},
		}},
	}
}

// dnsService names the cluster's DNS as kubelet and users know it. Each node answers for it itself, so there are no endpoints.
func dnsService(p Params) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-dns", Labels: map[string]string{"k8s-app": "kube-dns", "kubernetes.io/name": "Knarr"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: p.ClusterDNS.String(),
			Ports: []corev1.ServicePort{
				{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
				{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
			},
		},
	}
}
