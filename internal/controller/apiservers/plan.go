package apiservers

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	serviceName = "kubernetes"
	// managedBy is on the slices besides the one that every cluster has.
	managedBy = "apiservers.knarr.io"
	// forgottenAfter is how long the Lease of a server stays that is not there, as long as kube-apiserver's.
	forgottenAfter = time.Hour
)

// sighting is when a Lease was last seen to change.
type sighting struct {
	renewed time.Time
	at      time.Time
}

// look brings what was seen up to date with the leases as of now.
func look(seen map[string]sighting, leases []*coordinationv1.Lease, now time.Time) {
	present := map[string]bool{}
	for _, l := range leases {
		present[l.Name] = true
		renewed := time.Time{}
		if l.Spec.RenewTime != nil {
			renewed = l.Spec.RenewTime.Time
		}
		if s, ok := seen[l.Name]; !ok || !s.renewed.Equal(renewed) {
			seen[l.Name] = sighting{renewed, now}
		}
	}
	maps.DeleteFunc(seen, func(name string, _ sighting) bool { return !present[name] })
}

// census is who is there.
type census struct {
	addresses []netip.AddrPort // in order
	forgotten []*coordinationv1.Lease
	// next is when somebody's time may be over; 0 where nobody's can be.
	next time.Duration
}

// count tells which servers are there at now, besides self.
func count(seen map[string]sighting, leases []*coordinationv1.Lease, self netip.AddrPort, selfLease string, now time.Time) census {
	c := census{addresses: []netip.AddrPort{self}}
	for _, l := range leases {
		if l.Name == selfLease {
			continue
		}
		ago := now.Sub(seen[l.Name].at)
		within := leaseSeconds * time.Second
		if d := l.Spec.LeaseDurationSeconds; d != nil && *d > 0 {
			within = time.Duration(*d) * time.Second
		}
		limit := within
		if ago >= within {
			limit = forgottenAfter
		}
		if ago >= forgottenAfter {
			c.forgotten = append(c.forgotten, l)
			continue
		}
		if left := limit - ago; c.next == 0 || left < c.next {
			c.next = left
		}
		address, err := netip.ParseAddrPort(l.Annotations[addressAnnotation])
		if ago < within && err == nil && !slices.Contains(c.addresses, address) {
			c.addresses = append(c.addresses, address)
		}
	}
	slices.SortFunc(c.addresses, netip.AddrPort.Compare)
	return c
}

// byPort groups addresses by port, the port of most first: a slice has one set of ports.
func byPort(addresses []netip.AddrPort) (ports []uint16, hosts map[uint16][]string) {
	hosts = map[uint16][]string{}
	for _, a := range addresses {
		hosts[a.Port()] = append(hosts[a.Port()], a.Addr().String())
	}
	ports = slices.SortedFunc(maps.Keys(hosts), func(a, b uint16) int {
		return cmp.Or(cmp.Compare(len(hosts[b]), len(hosts[a])), cmp.Compare(a, b))
	})
	return ports, hosts
}

// slicesOf returns the EndpointSlices that list the addresses: the one that every cluster has, and one for each further port.
func slicesOf(addresses []netip.AddrPort) []*discoveryv1.EndpointSlice {
	ports, hosts := byPort(addresses)
	var out []*discoveryv1.EndpointSlice
	for i, p := range ports {
		name, port, tcp := "https", int32(p), corev1.ProtocolTCP
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: serviceName, Labels: map[string]string{discoveryv1.LabelServiceName: serviceName}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
		}
		if i > 0 {
			s.Name += "-" + strconv.Itoa(int(p))
			s.Labels[discoveryv1.LabelManagedBy] = managedBy
		}
		for _, h := range hosts[p] {
			ready := true
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{h}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		}
		out = append(out, s)
	}
	return out
}

// endpointsOf says the same in the older form, which clients still read.
func endpointsOf(addresses []netip.AddrPort) *corev1.Endpoints {
	ports, hosts := byPort(addresses)
	e := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: serviceName, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
	}
	for _, p := range ports {
		s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: int32(p), Protocol: corev1.ProtocolTCP}}}
		for _, h := range hosts[p] {
			s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: h})
		}
		e.Subsets = append(e.Subsets, s)
	}
	return e
}
