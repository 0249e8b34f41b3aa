package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/network/ipam"
)

func TestHostPortsOfEachFamily(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.0.5"), netip.MustParseAddr("fd00:244::5")
	for hostIP, want := range map[string]string{
		"":            "hairpins 10.244.0.5, any-host-ports tcp 80 -> 10.244.0.5:8080, hairpins fd00:244::5, any-host-ports tcp 80 -> [fd00:244::5]:8080",
		"0.0.0.0":     "hairpins 10.244.0.5, any-host-ports tcp 80 -> 10.244.0.5:8080, hairpins fd00:244::5",
		"::":          "hairpins 10.244.0.5, hairpins fd00:244::5, any-host-ports tcp 80 -> [fd00:244::5]:8080",
		"192.0.2.1":   "hairpins 10.244.0.5, host-ports 192.0.2.1 tcp 80 -> 10.244.0.5:8080, hairpins fd00:244::5",
		"2001:db8::1": "hairpins 10.244.0.5, hairpins fd00:244::5, host-ports 2001:db8::1 tcp 80 -> [fd00:244::5]:8080",
	} {
		p := ipam.HostPort{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}
		if hostIP != "" {
			p.HostIP = netip.MustParseAddr(hostIP)
		}
		var got []string
		for _, e := range hostPortElements([]netip.Addr{four, six}, []ipam.HostPort{p}) {
			got = append(got, e.String())
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("host address %q: %s\nwant %s", hostIP, strings.Join(got, ", "), want)
		}
	}
}
