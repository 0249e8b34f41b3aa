package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/knarr-io/knarr/internal/api"
)

// SetKind says what the elements of a set are.
type SetKind uint8

// The kinds of sets.
const (
	Addresses   SetKind = iota // of pods
	NamedPorts                 // address, protocol and port of pods that have a port of that name
	Ranges                     // of addresses; never changed
	PortNumbers                // protocol and port; never changed
)

// Element is one element of a set. Fields that the set's kind does not have are zero.
type Element struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// Set is a set with its elements, or ranges.
type Set struct {
	Name     string
	Kind     SetKind
	Elements []Element
	Ranges   []Range
}

// Rule lets connections pass that meet all of its conditions. Empty names and zeroes are no conditions.
type Rule struct {
	Peers       string   // set of the addresses at the other end
	NamedPorts  string   // set of the address, protocol and port that the connection goes to
	Ports       string   // set of its protocol and port
	Protocol    Protocol // its protocol
	First, Last uint16   // its ports, of Protocol
}

// Chain is either what one policy lets pass in a direction or all policies of a pod. What comes to the end of a pod's chain is dropped.
type Chain struct {
	Name      string
	Direction Direction
	Rules     []Rule
	OfPod     bool
	Jumps     []string // of a pod's
}

// need is a set that the rules of a policy look into.
type need struct {
	Set
	choice *choice // whose pods are its elements; nil where it never changes
	port   portMatch
}

// compiled is a chain with the sets that it needs, and where its rules come from.
type compiled struct {
	Chain
	needs   []need
	of      api.Key
	origins []int // of each of Rules: the number of the policy's rule that says so first, from 1 on
}

// hash names contents.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// compile returns the chain of g in a direction.
func (g *guard) compile(d Direction) *compiled {
	c := &compiled{Chain: Chain{Direction: d}, of: g.key}
	for i, a := range g.rules[d] {
		for _, peers := range c.peers(a) {
			for _, r := range c.ports(a, g, d, peers) {
				if !slices.Contains(c.Rules, r) {
					c.Rules, c.origins = append(c.Rules, r), append(c.origins, i+1)
				}
			}
		}
	}
	// Names of policies are for people who list the table; the kernel takes 127 characters.
	const room = 80
	name := g.key.Namespace + "/" + g.key.Name
	c.Name = d.String() + "/" + name[:min(len(name), room)] + "/" + hash(name, fmt.Sprint(c.Rules))
	return c
}

// peerMatch is one alternative of a rule's peers.
type peerMatch struct {
	set    string  // "" is everybody
	choice *choice // of pods, where it is one
}

// peers returns the alternatives of a's peers, each selector one and all blocks together one.
func (c *compiled) peers(a allowance) []peerMatch {
	if a.anyPeer {
		return []peerMatch{{}}
	}
	var out []peerMatch
	for i := range a.peers {
		p := &a.peers[i]
		out = append(out, peerMatch{set: c.need(need{Set: Set{Name: "pods-" + hash(p.id()), Kind: Addresses}, choice: p}), choice: p})
	}
	if len(a.blocks) > 0 {
		out = append(out, peerMatch{set: c.need(need{Set: Set{Name: "blocks-" + hash(fmt.Sprint(a.blocks)), Kind: Ranges, Ranges: a.blocks}})})
	}
	return out
}

// ports returns the rules for one alternative of the peers: the ports that are numbers are one, ranges, names and protocols one each.
func (c *compiled) ports(a allowance, g *guard, d Direction, peers peerMatch) []Rule {
	if a.ports == nil {
		return []Rule{{Peers: peers.set}}
	}
	var out []Rule
	var numbers []Element
	for _, p := range a.ports {
		switch {
		case p.name != "":
			out = append(out, c.named(p, g, d, peers))
		case p.first == 0 || p.first != p.last:
			out = append(out, Rule{Peers: peers.set, Protocol: p.protocol, First: p.first, Last: p.last})
		default:
			numbers = append(numbers, Element{Protocol: p.protocol, Port: p.first})
		}
	}
	switch {
	case len(numbers) == 1:
		out = append(out, Rule{Peers: peers.set, Protocol: numbers[0].Protocol, First: numbers[0].Port, Last: numbers[0].Port})
	case len(numbers) > 1:
		slices.SortFunc(numbers, compareElements)
		numbers = slices.Compact(numbers)
		ports := c.need(need{Set: Set{Name: "ports-" + hash(fmt.Sprint(numbers)), Kind: PortNumbers, Elements: numbers}})
		out = append(out, Rule{Peers: peers.set, Ports: ports})
	}
	return out
}

// named returns the rule for a port by name. A name is that of a port of the pod to which the connection goes, so each pod has its own
// number: of the pods that the policy selects, or of the peers.
func (c *compiled) named(p portMatch, g *guard, d Direction, peers peerMatch) Rule {
	of, rule := &g.pods, Rule{Peers: peers.set}
	if d == Egress {
		every := everyPod()
		of = &every
		if peers.choice != nil {
			of, rule.Peers = peers.choice, ""
		}
	}
	rule.NamedPorts = c.need(need{Set: Set{Name: "named-" + hash(of.id(), fmt.Sprint(p.protocol), p.name), Kind: NamedPorts}, choice: of, port: p})
	return rule
}

// need notes a set and returns its name.
func (c *compiled) need(n need) string {
	if !slices.ContainsFunc(c.needs, func(o need) bool { return o.Name == n.Name }) {
		c.needs = append(c.needs, n)
	}
	return n.Name
}

// podChain returns the chain for pods that have all of these policies' chains; with none of them it lets nothing pass.
func podChain(d Direction, policies []*compiled) Chain {
	c := Chain{Direction: d, OfPod: true}
	for _, p := range policies {
		c.Jumps = append(c.Jumps, p.Name)
	}
	slices.Sort(c.Jumps)
	c.Name = "pods-" + d.String() + "/" + hash(c.Jumps...)
	return c
}
