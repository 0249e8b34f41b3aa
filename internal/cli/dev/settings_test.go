package dev

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// roles writes nodes as "SAA": a server and two agents.
func roles(s Settings) string {
	var b strings.Builder
	for _, n := range s.Nodes {
		b.WriteString(strings.ToUpper(n.Role()[:1]))
	}
	return b.String()
}

func of(roles string) (s Settings) {
	for i, r := range roles {
		s.Nodes = append(s.Nodes, Node{Name: nodeName(i + 1), Number: i + 1, Server: r == 'S'})
	}
	return s
}

func TestNodesAreAddedAndKeepTheirRoles(t *testing.T) {
	for _, tc := range []struct {
		have string
		wish wish
		want string
		err  string
	}{
		{"", wish{}, "S", ""},
		{"", wish{nodes: 3}, "SAA", ""},
		{"", wish{nodes: 4, servers: 3}, "SSSA", ""},
		{"", wish{servers: 3}, "SSS", ""},
		{"SA", wish{}, "SA", ""},
		{"SA", wish{nodes: 2}, "SA", ""},
		{"SA", wish{nodes: 4}, "SAAA", ""},
		{"SA", wish{nodes: 4, servers: 3}, "SASS", ""},
		{"SA", wish{nodes: 5, servers: 3}, "SASSA", ""},
		{"SSS", wish{nodes: 4}, "SSSA", ""},
		{"SA", wish{nodes: 1}, "", "--nodes 1: there are 2 already"},
		{"SA", wish{nodes: 3, servers: 3}, "", "nodes keep their roles, so that takes --nodes 4"},
		{"SA", wish{servers: 2}, "", "that takes --nodes 3"},
		{"SSS", wish{servers: 1}, "", "--servers 1: there are 3 already"},
		{"", wish{nodes: 1, servers: 3}, "", "there are only --nodes 1"},
		{"", wish{nodes: 101}, "", "want 1 to 100"},
		{"", wish{nodes: -1}, "", "want 1 to 100"},
		{"", wish{serverArgs: []string{"--overlay=vxlan", "--node-ip", "10.0.0.1"}}, "", "chooses --node-ip"},
	} {
		before := of(tc.have)
		got, err := planNodes(before, tc.wish)
		if err == nil && tc.err != "" || err != nil && (tc.err == "" || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%q, %+v: error %v, want %q", tc.have, tc.wish, err, tc.err)
			continue
		}
		if err == nil && (roles(got) != tc.want || got.Nodes[len(got.Nodes)-1].Name != nodeName(len(got.Nodes))) {
			t.Errorf("%q, %+v: %s %+v, want %s", tc.have, tc.wish, roles(got), got.Nodes, tc.want)
		}
		if roles(before) != tc.have {
			t.Errorf("%q was changed to %s", tc.have, roles(before))
		}
	}
}

func TestSettingsThatWereNotGivenStay(t *testing.T) {
	s, err := planNodes(Settings{}, wish{nodes: 2, overlay: "vxlan", serverArgs: []string{"--max-pods=9"}, upstreamDNS: []string{"192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Subnet = netip.MustParsePrefix("10.77.3.0/24")
	path := filepath.Join(t.TempDir(), settingsName)
	if err := s.write(path); err != nil {
		t.Fatal(err)
	}
	read, err := readSettings(path)
	if err != nil || !reflect.DeepEqual(s, read) {
		t.Fatalf("written %+v, read %+v, %v", s, read, err)
	}
	again, err := planNodes(read, wish{})
	if err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("%+v became %+v, %v", s, again, err)
	}
	if none, err := readSettings(path + ".none"); err != nil || len(none.Nodes) != 0 {
		t.Errorf("no file: %+v, %v", none, err)
	}
}

func TestSubnetIsFree(t *testing.T) {
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	first, err := planSubnet("/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		taken []netip.Prefix
		same  bool
	}{
		{nil, true},
		{prefixes("192.0.2.0/24", "10.78.0.0/16", "10.76.0.0/16"), true},
		{[]netip.Prefix{first}, false},
		{[]netip.Prefix{netip.PrefixFrom(first.Addr(), 20)}, false},
		{[]netip.Prefix{netip.PrefixFrom(first.Addr().Next(), 32)}, false},
	} {
		got, err := planSubnet("/a", tc.taken)
		if err != nil || (got == first) != tc.same || overlapping(got, tc.taken).IsValid() || got.Bits() != 24 {
			t.Errorf("with %v taken: %v, %v; the first one is %v", tc.taken, got, err, first)
		}
	}
	if got, err := planSubnet("/a", prefixes("10.77.0.0/16")); err == nil {
		t.Errorf("with all taken: %v", got)
	}
	if other, err := planSubnet("/b", nil); err != nil || other == first {
		t.Errorf("two clusters want the same: %v, %v", other, err)
	}
}

// Names of links have 15 characters at most (IFNAMSIZ); addresses must fit into the /24.
func TestNamesAndAddressesFit(t *testing.T) {
	seen := map[string]string{}
	for _, dir := range []string{"/var/lib/knarr-dev", "/var/lib/knarr-dev/", "/a", "/" + strings.Repeat("long", 50)} {
		l := newLayout(dir)
		if len(l.hostLink()) > 15 {
			t.Errorf("%s: link %s", dir, l.hostLink())
		}
		if other, ok := seen[l.hostLink()]; ok && filepath.Clean(other) != filepath.Clean(dir) {
			t.Errorf("%s and %s have the same link", dir, other)
		}
		seen[l.hostLink()] = dir
		if hw := l.hardwareAddr("node-1"); len(hw) != 6 || hw[0]&3 != 2 || hw.String() == l.hardwareAddr("node-2").String() {
			t.Errorf("%s: hardware address %v; want a locally administered unicast one of its own", dir, hw)
		}
	}
	if len(seen) != 3 {
		t.Errorf("four ways to write three directories: %v", seen)
	}
	s := Settings{Subnet: netip.MustParsePrefix("10.77.5.0/24")}
	if len(nodeName(maxNodes)) > 15 || !s.Subnet.Contains(s.Address(Node{Number: maxNodes})) {
		t.Errorf("node %d: %s, %v", maxNodes, nodeName(maxNodes), s.Address(Node{Number: maxNodes}))
	}
	if g, a := s.gateway(), s.Address(Node{Number: 1}); g != netip.MustParseAddr("10.77.5.1") || a != netip.MustParseAddr("10.77.5.11") {
		t.Errorf("gateway %v, node 1 %v", g, a)
	}
}

func TestUpstreamsAreThoseThatNodesReach(t *testing.T) {
	for _, tc := range []struct{ conf, want string }{
		{"nameserver 192.0.2.53\n", "[192.0.2.53]"},
		{"# a comment\nsearch example.com\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\nnameserver 192.0.2.2\noptions x\n", "[192.0.2.1 192.0.2.2]"},
		{"nameserver 127.0.0.53\n", "[]"},
		{"nameserver\nnameserver nonsense", "[]"},
		{"", "[]"},
	} {
		if got := fmt.Sprint(planUpstreams(tc.conf)); got != tc.want {
			t.Errorf("%q: %s, want %s", tc.conf, got, tc.want)
		}
	}
}

func TestArguments(t *testing.T) {
	s := of("SA")
	s.Subnet, s.ServerArgs, s.UpstreamDNS = netip.MustParsePrefix("10.77.5.0/24"), []string{"--max-pods=9"}, []string{"192.0.2.53"}
	s.Overlay = "vxlan"
	c := &Cluster{layout: newLayout(t.TempDir()), Settings: s}
	for _, tc := range []struct {
		node int
		join bool
		want string
	}{
		{0, false, "server --listen 10.77.5.11:6443 --data-dir DIR/node-1 --node-name node-1 --node-ip 10.77.5.11 --upstream-dns 192.0.2.53 --overlay vxlan --max-pods=9"},
		{1, false, "agent --data-dir DIR/node-2 --node-name node-2 --node-ip 10.77.5.12 --upstream-dns 192.0.2.53"},
		{1, true, "agent --data-dir DIR/node-2 --node-name node-2 --node-ip 10.77.5.12 --upstream-dns 192.0.2.53 --server https://10.77.5.11:6443"},
	} {
		if got := strings.ReplaceAll(strings.Join(c.args(c.Nodes[tc.node], tc.join), " "), c.dir, "DIR"); got != tc.want {
			t.Errorf("node %d, joining %v:\n%s\nwant\n%s", tc.node+1, tc.join, got, tc.want)
		}
	}
}

func TestDownFindsNodesWithoutSettings(t *testing.T) {
	c := &Cluster{layout: newLayout(t.TempDir()), Settings: of("SA")}
	for _, dir := range []string{"node-1", "node-3", "netns/node-4", "netns/switch", "node-x", "node-05", "other"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := c.leftovers()
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	if got := strings.Join(names, " "); err != nil || got != "node-1 node-2 node-3 node-4" {
		t.Errorf("%s, %v", got, err)
	}
}
