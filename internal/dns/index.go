package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// Index holds what queries ask for. It is safe for concurrent use.
type Index struct {
	mu         sync.RWMutex
	namespaces map[string]struct{} // that exist, with Services or without
	services   map[string]map[string]*entry
	reverse    map[netip.Addr][]pointer
}

// entry is one Service; it is not changed once it is in the index.
type entry struct {
	key          api.Key
	externalName string // lower-case, with the final dot; "" for other types
	headless     bool
	clusterIPs   []netip.Addr
	ports        []port // of a Service with cluster IPs
	endpoints    []endpoint
}

type port struct {
	name, protocol string // lower-case: "http", "tcp"
	number         uint16 // 0 stands for no port at all
}

// endpoint is one ready address of a Service, with at least one port.
type endpoint struct {
	name  string // its label below the Service's name
	addr  netip.Addr
	ports []port
}

// pointer is what an address leads back to: a Service, or one endpoint name of it.
type pointer struct {
	key      api.Key
	endpoint string
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{namespaces: map[string]struct{}{}, services: map[string]map[string]*entry{}, reverse: map[netip.Addr][]pointer{}}
}

// SetNamespace records whether a namespace exists.
func (x *Index) SetNamespace(name string, exists bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if exists {
		x.namespaces[name] = struct{}{}
	} else {
		delete(x.namespaces, name)
	}
}

// Namespaces returns the keys of the namespaces that exist.
func (x *Index) Namespaces() []api.Key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]api.Key, 0, len(x.namespaces))
	for name := range x.namespaces {
		out = append(out, api.Key{Name: name})
	}
	return out
}

// Set replaces what is known of a Service; a nil svc removes it.
func (x *Index) Set(key api.Key, svc *corev1.Service, epSlices []*discoveryv1.EndpointSlice) {
	var e *entry
	if svc != nil {
		e = newEntry(svc, epSlices)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	ns := x.services[key.Namespace]
	if old := ns[key.Name]; old != nil {
		for addr := range old.addrs() {
			left := slices.DeleteFunc(slices.Clone(x.reverse[addr]), func(p pointer) bool { return p.key == key })
			if len(left) == 0 {
				delete(x.reverse, addr)
			} else {
				x.reverse[addr] = left
			}
		}
	}
	if e == nil {
		delete(ns, key.Name)
		if len(ns) == 0 {
			delete(x.services, key.Namespace)
		}
		return
	}
	if ns == nil {
		ns = map[string]*entry{}
		x.services[key.Namespace] = ns
	}
	ns[key.Name] = e
	for addr, name := range e.addrs() {
		// Readers may hold the old slice: append to a copy.
		x.reverse[addr] = append(slices.Clone(x.reverse[addr]), pointer{key, name})
	}
}

// Keys returns all Services in the index.
func (x *Index) Keys() []api.Key {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []api.Key
	for _, ns := range x.services {
		for _, e := range ns {
			out = append(out, e.key)
		}
	}
	return out
}

// service returns the entry of a Service, or nil.
func (x *Index) service(namespace, name string) *entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.services[namespace][name]
}

// namespace reports whether a namespace exists.
func (x *Index) namespace(name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.namespaces[name]
	return ok || len(x.services[name]) > 0
}

// pointers returns what addr leads back to.
func (x *Index) pointers(addr netip.Addr) []pointer {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.reverse[addr]
}

// newEntry takes from a Service and its slices what queries can ask for.
func newEntry(svc *corev1.Service, epSlices []*discoveryv1.EndpointSlice) *entry {
	e := &entry{key: api.KeyOf(svc)}
	switch {
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		e.externalName = strings.ToLower(strings.TrimSuffix(svc.Spec.ExternalName, ".")) + "."
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		e.headless = true
		e.endpoints = endpointsOf(epSlices)
	default:
		e.endpoints = endpointsOf(epSlices)
		ips := svc.Spec.ClusterIPs
		if len(ips) == 0 {
			ips = []string{svc.Spec.ClusterIP}
		}
		for _, ip := range ips {
			if addr, err := netip.ParseAddr(ip); err == nil {
				e.clusterIPs = append(e.clusterIPs, addr)
			}
		}
		for _, p := range svc.Spec.Ports {
			e.ports = append(e.ports, port{strings.ToLower(p.Name), protocolName(p.Protocol), uint16(p.Port)})
		}
	}
	return e
}

// endpointsOf returns the ready endpoints, each name and address once, ordered by address. The ports of an address that is in several
// slices (one for each set of port numbers) are put together.
func endpointsOf(epSlices []*discoveryv1.EndpointSlice) []endpoint {
	type id struct {
		name string
		addr netip.Addr
	}
	found := map[id]*endpoint{}
	for _, slice := range epSlices {
		ports := portsOf(slice)
		for i := range slice.Endpoints {
			ep := &slice.Endpoints[i]
			if ep.Conditions.Ready != nil && !*ep.Conditions.Ready {
				continue
			}
			for _, a := range ep.Addresses {
				addr, err := netip.ParseAddr(a)
				if err != nil {
					continue
				}
				key := id{endpointName(ep, addr), addr}
				if found[key] == nil {
					found[key] = &endpoint{name: key.name, addr: addr}
				}
				for _, p := range ports {
					if !slices.Contains(found[key].ports, p) {
						found[key].ports = append(found[key].ports, p)
					}
				}
			}
		}
	}
	out := make([]endpoint, 0, len(found))
	for _, e := range found {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.name, b.name)) })
	return out
}

// portsOf returns the ports of a slice's endpoints; a slice without any has addresses all the same.
func portsOf(slice *discoveryv1.EndpointSlice) []port {
	if len(slice.Ports) == 0 {
		return []port{{}}
	}
	var out []port
	for _, p := range slice.Ports {
		var o port
		if p.Name != nil {
			o.name = strings.ToLower(*p.Name)
		}
		if p.Protocol != nil {
			o.protocol = protocolName(*p.Protocol)
		}
		if p.Port != nil {
			o.number = uint16(*p.Port)
		}
		out = append(out, o)
	}
	return out
}

// endpointName returns the endpoint's hostname or, in its absence, one made of the address (specification 2.1).
func endpointName(ep *discoveryv1.Endpoint, addr netip.Addr) string {
	if ep.Hostname != nil && *ep.Hostname != "" {
		return strings.ToLower(*ep.Hostname)
	}
	return dashed(addr)
}

// dashed writes an address as one label, "10-244-0-5", as CoreDNS does: fd00:: is "fd00--0".
func dashed(addr netip.Addr) string {
	label := strings.NewReplacer(".", "-", ":", "-").Replace(addr.String())
	if strings.HasSuffix(label, "-") {
		label += "0"
	}
	return label
}

func protocolName(p corev1.Protocol) string {
	return strings.ToLower(string(cmp.Or(p, corev1.ProtocolTCP)))
}

// addrs yields the addresses of the entry that have a PTR record, each with the endpoint name it leads back to.
func (e *entry) addrs() func(yield func(netip.Addr, string) bool) {
	return func(yield func(netip.Addr, string) bool) {
		for _, a := range e.clusterIPs {
			if !yield(a, "") {
				return
			}
		}
		for _, ep := range e.endpoints {
			if !yield(ep.addr, ep.name) {
				return
			}
		}
	}
}
