package policy

import (
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/nft"
)

type labelSet = labels.Set

// Model is what is known and what follows from it, for one node and family. It is not safe for concurrent use. Make one with New.
type Model struct {
	family     nft.Family
	namespaces map[string]map[string]string
	pods       map[string]map[string]Pod // by namespace and name
	policies   map[api.Key]*policy
	attached   map[netip.Addr]Attachment
	own        map[api.Key][]netip.Addr // attached addresses of a pod

	guarding   index[*policy] // policies by whom they select
	selections map[string]*selection
	bySpaces   map[*selection]struct{}
	chosen     index[*selection]

	sets        map[string]*set
	chains      map[string]*chain
	guards      map[guardKey]*chain
	dirtySets   map[string]*set
	dirtyChains map[string]*chain
	dirtyGuards map[guardKey]struct{}
	kernel      map[guardKey]string // what was written last
}

// policy is a policy with its chains, which are made when a pod of this node needs them.
type policy struct {
	*guard
	compiled [NumDirections]*compiled
}

// guardKey is one direction of an address of this node.
type guardKey struct {
	Direction
	addr netip.Addr
}

// chain is a chain in use, with whether the kernel has it.
type chain struct {
	Chain
	needs   []need
	below   []*chain // those that it jumps to
	of      api.Key  // whose rules it has, and where they come from; see compiled
	origins []int
	users   int
	written bool
}

// Attachment is an address that a pod has on this node.
type Attachment struct {
	Addr netip.Addr
	Pod  api.Key
	UID  types.UID // "" is any
}

// New returns an empty model.
func New(family nft.Family) *Model {
	return &Model{
		family: family, namespaces: map[string]map[string]string{}, pods: map[string]map[string]Pod{}, policies: map[api.Key]*policy{},
		attached: map[netip.Addr]Attachment{}, own: map[api.Key][]netip.Addr{}, guarding: index[*policy]{}, selections: map[string]*selection{},
		bySpaces: map[*selection]struct{}{}, chosen: index[*selection]{}, sets: map[string]*set{}, chains: map[string]*chain{},
		guards: map[guardKey]*chain{}, dirtySets: map[string]*set{}, dirtyChains: map[string]*chain{}, dirtyGuards: map[guardKey]struct{}{},
		kernel: map[guardKey]string{},
	}
}

// mine reports whether addr is of the model's family.
func (m *Model) mine(addr netip.Addr) bool { return nft.FamilyOf(addr) == m.family }

// PolicyKeys returns the keys of all policies.
func (m *Model) PolicyKeys() []api.Key { return slices.Collect(maps.Keys(m.policies)) }

// NamespaceKeys returns the keys of all namespaces.
func (m *Model) NamespaceKeys() []api.Key {
	var out []api.Key
	for name := range m.namespaces {
		out = append(out, api.Key{Name: name})
	}
	return out
}

// PodKeys returns the keys of all pods.
func (m *Model) PodKeys() []api.Key {
	var out []api.Key
	for _, namespace := range m.pods {
		for _, p := range namespace {
			out = append(out, p.Key)
		}
	}
	return out
}

// SetPolicy says what a policy is.
func (m *Model) SetPolicy(p *networkingv1.NetworkPolicy) {
	m.replacePolicy(api.KeyOf(p), &policy{guard: read(p, m.family)})
}

// DeletePolicy says that a policy is no longer there.
func (m *Model) DeletePolicy(key api.Key) { m.replacePolicy(key, nil) }

func (m *Model) replacePolicy(key api.Key, now *policy) {
	first := len(m.policies) == 0
	if old := m.policies[key]; old != nil {
		m.guarding.remove(place{key.Namespace, termOf(old.pods.pods)}, old)
		delete(m.policies, key)
	}
	if now != nil {
		m.policies[key] = now
		m.guarding.add(place{key.Namespace, termOf(now.pods.pods)}, now)
	}
	// Without any policy nobody is closed, known or not.
	everybody := first || len(m.policies) == 0
	for _, addr := range slices.Collect(maps.Keys(m.attached)) {
		if everybody || m.attached[addr].Pod.Namespace == key.Namespace {
			m.judge(addr)
		}
	}
}

// SetNamespace says which labels a namespace has.
func (m *Model) SetNamespace(name string, set map[string]string) {
	old, known := m.namespaces[name]
	if known && maps.Equal(old, set) {
		return
	}
	m.moveNamespace(name, func() { m.namespaces[name] = set })
}

// DeleteNamespace says that a namespace is no longer there.
func (m *Model) DeleteNamespace(name string) {
	m.moveNamespace(name, func() { delete(m.namespaces, name) })
}

// moveNamespace counts a namespace's pods anew around a change of its labels.
func (m *Model) moveNamespace(name string, change func()) {
	if len(m.bySpaces) == 0 {
		change()
		return
	}
	for _, p := range m.pods[name] {
		m.count(m.whole(p), -1)
	}
	for sel := range m.bySpaces {
		m.chosen.remove(place{name, termOf(sel.pods)}, sel)
	}
	change()
	if set, known := m.namespaces[name]; known {
		for sel := range m.bySpaces {
			if sel.spaces.Matches(labelSet(set)) {
				m.chosen.add(place{name, termOf(sel.pods)}, sel)
			}
		}
	}
	for _, p := range m.pods[name] {
		m.count(m.whole(p), 1)
	}
}

// whole returns p with the addresses that it has on this node, also those that its status does not show yet.
func (m *Model) whole(p Pod) Pod {
	if p.Gone {
		p.Addrs = nil
		return p
	}
	for _, addr := range m.own[p.Key] {
		if m.belongs(m.attached[addr], p) && !slices.Contains(p.Addrs, addr) {
			p.Addrs = append(slices.Clip(p.Addrs), addr)
		}
	}
	return p
}

// belongs reports whether an attachment is that of p, and not of an earlier pod of the name.
func (m *Model) belongs(a Attachment, p Pod) bool {
	return a.UID == "" || p.UID == "" || a.UID == p.UID
}

// SetPod says what a pod is.
func (m *Model) SetPod(p Pod) {
	namespace := m.pods[p.Key.Namespace]
	if namespace == nil {
		namespace = map[string]Pod{}
		m.pods[p.Key.Namespace] = namespace
	}
	old, known := namespace[p.Key.Name]
	if known {
		m.count(m.whole(old), -1)
	}
	namespace[p.Key.Name] = p
	m.count(m.whole(p), 1)
	m.judgePod(p.Key)
}

// DeletePod says that a pod is no longer there.
func (m *Model) DeletePod(key api.Key) {
	old, known := m.pods[key.Namespace][key.Name]
	if !known {
		return
	}
	m.count(m.whole(old), -1)
	delete(m.pods[key.Namespace], key.Name)
	if len(m.pods[key.Namespace]) == 0 {
		delete(m.pods, key.Namespace)
	}
	m.judgePod(key)
}

// Attach says that a pod has an address on this node.
func (m *Model) Attach(a Attachment) {
	m.Detach(a.Addr)
	if !m.mine(a.Addr) {
		return
	}
	m.recount(a.Pod, func() {
		m.attached[a.Addr] = a
		m.own[a.Pod] = append(m.own[a.Pod], a.Addr)
	})
	m.judge(a.Addr)
}

// Detach says that nobody has an address on this node any longer.
func (m *Model) Detach(addr netip.Addr) {
	old, known := m.attached[addr]
	if !known {
		return
	}
	m.recount(old.Pod, func() {
		delete(m.attached, addr)
		m.own[old.Pod] = slices.DeleteFunc(m.own[old.Pod], func(a netip.Addr) bool { return a == addr })
		if len(m.own[old.Pod]) == 0 {
			delete(m.own, old.Pod)
		}
	})
	m.judge(addr)
}

// recount counts a pod anew around a change of its addresses.
func (m *Model) recount(key api.Key, change func()) {
	p, known := m.pods[key.Namespace][key.Name]
	if known {
		m.count(m.whole(p), -1)
	}
	change()
	if known {
		m.count(m.whole(p), 1)
	}
}

// judgePod judges the addresses that a pod has on this node.
func (m *Model) judgePod(key api.Key) {
	for _, addr := range m.own[key] {
		m.judge(addr)
	}
}
