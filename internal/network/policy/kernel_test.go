package policy

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// kernel is what the changes add up to, with rules that are carried out. It refuses what nftables refuses.
type kernel struct {
	t      testing.TB
	sets   map[string]map[Element]bool
	ranges map[string][]Range
	chains map[string]Chain
	guards map[guardKey]string
}

func newKernel(t testing.TB) *kernel {
	return &kernel{t, map[string]map[Element]bool{}, map[string][]Range{}, map[string]Chain{}, map[guardKey]string{}}
}

func (k *kernel) apply(c Changes) {
	k.t.Helper()
	for _, s := range c.AddSets {
		if k.sets[s.Name] != nil {
			k.t.Fatalf("set %s is there already", s.Name)
		}
		k.sets[s.Name], k.ranges[s.Name] = map[Element]bool{}, s.Ranges
		for _, e := range s.Elements {
			k.sets[s.Name][e] = true
		}
	}
	for _, ch := range c.AddChains {
		if _, there := k.chains[ch.Name]; there {
			k.t.Fatalf("chain %s is there already", ch.Name)
		}
		for _, name := range ch.Jumps {
			if _, there := k.chains[name]; !there {
				k.t.Fatalf("chain %s jumps to %s, which is not there", ch.Name, name)
			}
		}
		for _, r := range ch.Rules {
			for _, set := range []string{r.Peers, r.NamedPorts, r.Ports} {
				if set != "" && k.sets[set] == nil {
					k.t.Fatalf("chain %s looks into %s, which is not there", ch.Name, set)
				}
			}
		}
		k.chains[ch.Name] = ch
	}
	for _, g := range c.DeleteGuards {
		if k.guards[guardKey{g.Direction, g.Addr}] == "" {
			k.t.Fatalf("%v has no guard for %v", g.Addr, g.Direction)
		}
		delete(k.guards, guardKey{g.Direction, g.Addr})
	}
	for _, g := range c.AddGuards {
		if _, there := k.chains[g.Chain]; !there || k.guards[guardKey{g.Direction, g.Addr}] != "" {
			k.t.Fatalf("guard %+v: its chain is there: %v; it has %q", g, there, k.guards[guardKey{g.Direction, g.Addr}])
		}
		k.guards[guardKey{g.Direction, g.Addr}] = g.Chain
	}
	k.elements(c)
	k.remove(c)
}

func (k *kernel) elements(c Changes) {
	k.t.Helper()
	for _, s := range c.Delete {
		for _, e := range s.Elements {
			if !k.sets[s.Name][e] {
				k.t.Fatalf("set %s has no element %v", s.Name, e)
			}
			delete(k.sets[s.Name], e)
		}
	}
	for _, s := range c.Add {
		for _, e := range s.Elements {
			if k.sets[s.Name] == nil || k.sets[s.Name][e] {
				k.t.Fatalf("set %s (there: %v) has element %v already", s.Name, k.sets[s.Name] != nil, e)
			}
			k.sets[s.Name][e] = true
		}
	}
}

func (k *kernel) remove(c Changes) {
	k.t.Helper()
	for _, name := range c.DeleteChains {
		for _, g := range k.guards {
			if g == name {
				k.t.Fatalf("chain %s still guards", name)
			}
		}
		for _, ch := range k.chains {
			for _, jump := range ch.Jumps {
				if jump == name {
					k.t.Fatalf("chain %s is still jumped to by %s", name, ch.Name)
				}
			}
		}
		delete(k.chains, name)
	}
	for _, s := range c.DeleteSets {
		for _, ch := range k.chains {
			for _, r := range ch.Rules {
				if r.Peers == s.Name || r.NamedPorts == s.Name || r.Ports == s.Name {
					k.t.Fatalf("set %s is still looked into by %s", s.Name, ch.Name)
				}
			}
		}
		delete(k.sets, s.Name)
		delete(k.ranges, s.Name)
	}
}

// passes reports whether the rules of a direction let a connection pass.
func (k *kernel) passes(c connection, d Direction) bool {
	self, other := c.server, c.client
	if d == Egress {
		self, other = c.client, c.server
	}
	name := k.guards[guardKey{d, self}]
	if c.client == c.server || name == "" {
		return true
	}
	for _, jump := range k.chains[name].Jumps {
		for _, r := range k.chains[jump].Rules {
			if k.rulePasses(r, c, other) {
				return true
			}
		}
	}
	return false
}

func (k *kernel) rulePasses(r Rule, c connection, other netip.Addr) bool {
	protocol, _ := ProtocolOf(c.protocol)
	port := uint16(c.port)
	if r.Peers != "" && !k.sets[r.Peers][Element{Addr: other}] && !inRanges(k.ranges[r.Peers], other) ||
		r.NamedPorts != "" && !k.sets[r.NamedPorts][Element{Addr: c.server, Protocol: protocol, Port: port}] ||
		r.Ports != "" && !k.sets[r.Ports][Element{Protocol: protocol, Port: port}] ||
		r.Protocol != 0 && r.Protocol != protocol {
		return false
	}
	return r.First == 0 || r.First <= port && port <= r.Last
}

func inRanges(ranges []Range, addr netip.Addr) bool {
	for _, r := range ranges {
		if !addr.Less(r.First) && !r.Last.Less(addr) {
			return true
		}
	}
	return false
}

var protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
