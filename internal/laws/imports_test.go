package laws

import (
	"slices"
	"strings"
	"testing"
)

// rooms are the packages below internal/, top to bottom: each may import those that stand after it. Rooms in one line are
// neighbours and do not import each other.
var rooms = [][]string{
	{"cli"},
	{"ui"},
	{"why"},
	{"simulate"},
	{"machine"},
	{"controlplane"},
	{"cluster"},
	{"mesh", "gateway"},
	{"network", "dns"},
	{"node"},
	{"scheduler"},
	{"controller"},
	{"client"},
	{"server"},
	{"api"},
	{"store"},
	{"pki"},
	{"image"},
	{"amount"},
	{"laws"},
}

// forbidden are packages that a room may not import from elsewhere, with the rooms that may.
var forbidden = []struct{ prefix, allowed, why string }{
	{"k8s.io/kubernetes/", "internal/api", "upstream's packages are confined to internal/api (docs/adr/0001)"},
	{"k8s.io/apiserver/pkg/server", "-", "the generic API server is not part of Knarr"},
	{"k8s.io/apiserver/pkg/registry", "-", "the generic API server is not part of Knarr"},
	{"k8s.io/client-go/informers", "-", "nobody keeps an informer cache of their own (internal/client)"},
	{"k8s.io/kubernetes/pkg/registry", "-", "strategies are Knarr's own"},
}

// rank is a room's place from the top, or -1.
func rank(dir string) (int, string) {
	rest, ok := strings.CutPrefix(dir, "internal/")
	if !ok {
		return -1, ""
	}
	room, _, _ := strings.Cut(rest, "/")
	for i, line := range rooms {
		if slices.Contains(line, room) {
			return i, room
		}
	}
	return -1, room
}

func TestImportsPointDown(t *testing.T) {
	for _, s := range allSources(t) {
		from, room := rank(s.dir)
		if from < 0 && strings.HasPrefix(s.dir, "internal/") {
			t.Errorf("%s: room %q has no place in the house: add it to rooms in internal/laws and to docs/architecture.md", s.path, room)
			continue
		}
		for _, imp := range s.imports() {
			for _, f := range forbidden {
				if strings.HasPrefix(imp, f.prefix) && !strings.HasPrefix(s.dir, f.allowed) {
					t.Errorf("%s imports %s: %s", s.path, imp, f.why)
				}
			}
			target, ok := strings.CutPrefix(imp, module)
			if !ok || from < 0 {
				continue
			}
			if strings.HasPrefix(target, "cmd/") {
				t.Errorf("%s imports %s: nothing imports the composition root", s.path, imp)
				continue
			}
			// Tests may use the memory-backed client to exercise a package through the front door.
			if s.test && strings.HasPrefix(target, "internal/client") {
				continue
			}
			if to, toRoom := rank(target); to < from || to == from && toRoom != room {
				t.Errorf("%s imports %s: %s stands above or beside %s; imports point down", s.path, imp, toRoom, room)
			}
		}
	}
}

// serverRooms are those of the server that answer requests or let them in: neighbours, which package server wires up.
var serverRooms = []string{"gate", "route", "aggregate", "verbs", "connect", "review", "usage", "components", "documents"}

// TestServerRoomsAreNeighbours: what two of them share stands in server/call or below.
func TestServerRoomsAreNeighbours(t *testing.T) {
	const server = "internal/server/"
	found := map[string]bool{}
	for _, s := range allSources(t) {
		room, ok := strings.CutPrefix(s.dir, server)
		if !ok || s.test || !slices.Contains(serverRooms, room) {
			continue
		}
		found[room] = true
		for _, imp := range s.imports() {
			other, ok := strings.CutPrefix(imp, module+server)
			if imp == module+"internal/server" || ok && slices.Contains(serverRooms, other) {
				t.Errorf("%s imports %s: rooms of the server do not import each other", s.path, imp)
			}
		}
	}
	if len(found) != len(serverRooms) {
		t.Errorf("found only the rooms %v", found)
	}
}
