package network

import (
	"net/netip"

	"github.com/knarr-io/knarr/internal/network/ipam"
	"github.com/knarr-io/knarr/internal/network/services"
)

func hostPortOwner(o ipam.Owner) string { return o.ContainerID + "/" + o.IfName }

// hostPortElements returns the map elements that lead the node's ports to the pod at addrs. A host address is of use in its family
// alone.
func hostPortElements(addrs []netip.Addr, ports []ipam.HostPort) []services.Element {
	if len(ports) == 0 {
		return nil
	}
	var out []services.Element
	for _, addr := range addrs {
		// The pod may use its own host port.
		out = append(out, services.Element{Key: services.Key{Set: services.Hairpins, Addr: addr}})
		for _, p := range ports {
			if p.HostIP.IsValid() && p.HostIP.Is4() != addr.Is4() {
				continue
			}
			out = append(out, hostPortElement(addr, p))
		}
	}
	return out
}

func hostPortElement(addr netip.Addr, p ipam.HostPort) services.Element {
	key := services.Key{Set: services.AnyHostPorts, Port: p.HostPort, Proto: services.TCP}
	switch p.Protocol {
	case "udp":
		key.Proto = services.UDP
	case "sctp":
		key.Proto = services.SCTP
	}
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		key.Set, key.Addr = services.HostPorts, p.HostIP
	}
	return services.Element{Key: key, Value: services.Value{Addr: addr, Port: p.ContainerPort}}
}
