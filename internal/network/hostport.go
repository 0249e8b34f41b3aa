package network

import (
	"net/netip"

	"github.com/knarr-io/knarr/internal/network/ipam"
	"github.com/knarr-io/knarr/internal/network/services"
)

func hostPortOwner(o ipam.Owner) string { return o.ContainerID + "/" + o.IfName }

// hostPortElements returns the map elements that lead the node's ports to the pod at addr.
func hostPortElements(addr netip.Addr, ports []ipam.HostPort) []services.Element {
	if len(ports) == 0 {
		return nil
	}
	// The pod may use its own host port.
	out := []services.Element{{Key: services.Key{Set: services.Hairpins, Addr: addr}}}
	for _, p := range ports {
		key := services.Key{Set: services.AnyHostPorts, Addr: p.HostIP, Port: p.HostPort, Proto: services.TCP}
		switch p.Protocol {
		case "udp":
			key.Proto = services.UDP
		case "sctp":
			key.Proto = services.SCTP
		}
		if p.HostIP.IsValid() {
			key.Set = services.HostPorts
		}
		out = append(out, services.Element{Key: key, Value: services.Value{Addr: addr, Port: p.ContainerPort}})
	}
	return out
}
