// Package ipam hands out the pod addresses of one node, of one address family or of both.
//
// What flows through it: the CNI server asks for an address per sandbox and interface and gives it back when the sandbox
// goes; each allocation is one small file named for its address, so that a restart of Knarr knows every address in use
// and a crash leaks none ([Pool.Reclaim] compares with the sandboxes that live). What must stay true: an address has at
// most one owner; it is on disk before it is handed out and off the disk before it is free again; a freed address is the
// last to be reused, because peers may still remember it. Tests: TestPoolProperties, TestFreedAddressIsReusedLast,
// TestSurvivesRestartAndBrokenFiles.
package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// ErrFull says that every address of the pool is in use.
var ErrFull = errors.New("no free pod address")

// Owner is the interface an address belongs to: one sandbox's, by its CNI container ID, and the interface name in it.
type Owner struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// Allocation is one address in use and what must be undone when it is released.
type Allocation struct {
	Owner
	Addr         netip.Addr   `json:"address"`
	More         []netip.Addr `json:"moreAddresses,omitempty"` // of other families
	Link         string       `json:"link"`                    // host side of the veth pair
	NetNS        string       `json:"netns,omitempty"`         // path of the sandbox's network namespace, as the runtime sees it
	PodNamespace string       `json:"podNamespace,omitempty"`
	PodName      string       `json:"podName,omitempty"`
	PodUID       string       `json:"podUID,omitempty"`
	HostPorts    []HostPort   `json:"hostPorts,omitempty"`
}

// Addrs returns all addresses, the primary one first.
func (a *Allocation) Addrs() []netip.Addr { return append([]netip.Addr{a.Addr}, a.More...) }

// HostPort is one port of the node that leads to a port of the pod.
type HostPort struct {
	HostIP        netip.Addr `json:"hostIP,omitzero"` // the zero Addr means every address of the node, 0.0.0.0 or :: every one of that family
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
	Protocol      string     `json:"protocol"` // tcp, udp, sctp
}

// Pool is the set of addresses of one prefix, or of one for each family. It is safe for concurrent use.
type Pool struct {
	dir string

	mu     sync.Mutex
	spans  []*span
	owners map[Owner]Allocation
}

// span is the addresses of one prefix.
type span struct {
	prefix netip.Prefix
	first  netip.Addr // first address handed out
	size   int        // number of addresses from first on
	used   bitmap
	next   int // where the search for a free address begins
}

// Open returns the pool of prefixes whose allocations are kept in dir, which is created where missing; of the first one comes the primary
// address of each owner. Files that are not a whole allocation (a crash while writing) are removed. Allocations of another prefix (the
// node's pod CIDR was changed) stay known until released.
func Open(dir string, prefixes ...netip.Prefix) (*Pool, error) {
	p := &Pool{dir: dir, owners: map[Owner]Allocation{}}
	for _, prefix := range prefixes {
		s, err := newSpan(prefix)
		if err != nil {
			return nil, err
		}
		p.spans = append(p.spans, s)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pod addresses: %w", err)
	}
	return p, p.load()
}

func newSpan(prefix netip.Prefix) (*span, error) {
	prefix = prefix.Masked()
	if !prefix.IsValid() {
		return nil, errors.New("pod CIDR is missing")
	}
	bits := prefix.Addr().BitLen() - prefix.Bits()
	if bits < 2 {
		return nil, fmt.Errorf("pod CIDR %v is too small: a node needs at least four addresses", prefix)
	}
	// The first address is the network's, the second stays free for the node (an overlay device has it on
	// several nodes), the last is the broadcast address. More than 2^20 pods will not run on one node.
	size := 1<<min(bits, 20) - 3
	return &span{prefix: prefix, first: prefix.Addr().Next().Next(), size: size, used: newBitmap(size)}, nil
}

// load reads the allocations from disk.
func (p *Pool) load() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("pod addresses: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(p.dir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("pod addresses: %w", err)
		}
		var a Allocation
		if json.Unmarshal(data, &a) != nil || a.Addr.String() != e.Name() || a.ContainerID == "" {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("pod addresses: %w", err)
			}
			continue
		}
		p.owners[a.Owner] = a
		p.each(&a, func(s *span, i int) {
			s.used.set(i)
			s.next = max(s.next, i+1)
		})
	}
	return nil
}

// Allocate gives a.Owner an address of each prefix and stores a with it. An owner that has one already keeps it: CNI ADD may come again.
func (p *Pool) Allocate(a Allocation) (Allocation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, ok := p.owners[a.Owner]; ok {
		return old, nil
	}
	var addrs []netip.Addr
	for _, s := range p.spans {
		i, ok := s.used.free(s.next)
		if !ok {
			return Allocation{}, fmt.Errorf("%w in %v: %d are in use", ErrFull, s.prefix, s.size)
		}
		addrs = append(addrs, add(s.first, i))
	}
	a.Addr, a.More = addrs[0], addrs[1:]
	if err := p.write(a); err != nil {
		return Allocation{}, fmt.Errorf("pod address %v: %w", a.Addr, err)
	}
	p.each(&a, func(s *span, i int) {
		s.used.set(i)
		s.next = i + 1
	})
	p.owners[a.Owner] = a
	return a, nil
}

// Release frees the addresses of owner and returns what had been allocated; ok is false where there was nothing.
func (p *Pool) Release(owner Owner) (a Allocation, ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok = p.owners[owner]
	if !ok {
		return Allocation{}, false, nil
	}
	if err := os.Remove(p.path(a.Addr)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a, true, fmt.Errorf("releasing pod address %v: %w", a.Addr, err)
	}
	delete(p.owners, owner)
	p.each(&a, func(s *span, i int) { s.used.clear(i) })
	return a, true, nil
}

// Get returns the allocation of owner.
func (p *Pool) Get(owner Owner) (Allocation, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.owners[owner]
	return a, ok
}

// List returns all allocations by address.
func (p *Pool) List() []Allocation {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Allocation, 0, len(p.owners))
	for _, a := range p.owners {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Allocation) int { return a.Addr.Compare(b.Addr) })
	return out
}

func (p *Pool) path(addr netip.Addr) string { return filepath.Join(p.dir, addr.String()) }

// write stores a in one file that exists whole or not at all.
func (p *Pool) write(a Allocation) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	// The temporary name never parses as an address, so that load removes what a crash leaves.
	tmp := p.path(a.Addr) + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, p.path(a.Addr))
}

// each calls f with the places of a's addresses; those of a prefix that the node no longer has are in none.
func (p *Pool) each(a *Allocation, f func(s *span, i int)) {
	for _, addr := range a.Addrs() {
		for _, s := range p.spans {
			if i, ok := s.index(addr); ok {
				f(s, i)
			}
		}
	}
}

// index returns the position of addr in the span.
func (s *span) index(addr netip.Addr) (int, bool) {
	if !s.prefix.Contains(addr) || addr.Less(s.first) {
		return 0, false
	}
	i := distance(s.first, addr)
	return i, i >= 0 && i < s.size
}
