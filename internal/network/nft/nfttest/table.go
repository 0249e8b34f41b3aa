// Package nfttest has an nftables table in memory, for tests of what writes one.
//
// What flows through it: transactions are applied as the kernel would, one after the other; [Table.Dump] shows the outcome as text. What must
// stay true: what the kernel refuses is refused, with the same error number, and then nothing of the transaction happens.
package nfttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Table is a table in memory. It is safe for concurrent use. Make one with New.
type Table struct {
	family nft.Family

	mu      sync.Mutex
	state   *state // nil while there is no table
	failure error
	deleted []func()
}

// New returns a table of that family, which does not exist yet.
func New(f nft.Family) *Table { return &Table{family: f} }

type state struct {
	sets   map[string]*set
	chains map[string]*nft.Chain
}

type set struct {
	nft.Set
	elements map[string]nft.Element // by key
}

func newState() *state { return &state{sets: map[string]*set{}, chains: map[string]*nft.Chain{}} }

func (s *state) clone() *state {
	if s == nil {
		return nil
	}
	out := newState()
	for name, old := range s.sets {
		out.sets[name] = &set{old.Set, maps.Clone(old.elements)}
	}
	for name, c := range s.chains {
		copied := *c
		out.chains[name] = &copied
	}
	return out
}

// Fail makes all transactions from now on fail with err; nil ends that.
func (t *Table) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failure = err
}

// Delete deletes the table as somebody else would, and lets those know who watch.
func (t *Table) Delete() {
	t.mu.Lock()
	t.state = nil
	watchers := slices.Clone(t.deleted)
	t.mu.Unlock()
	for _, deleted := range watchers {
		deleted()
	}
}

// Run applies tx, all or nothing.
func (t *Table) Run(tx *nft.Transaction) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failure != nil {
		return t.failure
	}
	next := t.state.clone()
	for i, s := range tx.Steps {
		var err error
		switch {
		case s.Kind == nft.AddTable:
			if next == nil {
				next = newState()
			}
		case next == nil:
			err = unix.ENOENT
		case s.Kind == nft.DeleteTable:
			next = nil
		default:
			err = next.apply(s)
		}
		if err != nil {
			return fmt.Errorf("step %d (%s): %w", i, describe(s), err)
		}
	}
	t.state = next
	return nil
}

// apply takes one step.
func (s *state) apply(step nft.Step) error {
	switch step.Kind {
	case nft.AddSet:
		if s.sets[step.Set.Name] == nil {
			s.sets[step.Set.Name] = &set{*step.Set, map[string]nft.Element{}}
		}
	case nft.DeleteSet:
		return s.deleteSet(step.Set.Name)
	case nft.AddChain:
		return s.addChain(step.Chain)
	case nft.DeleteChain:
		return s.deleteChain(step.Chain.Name)
	case nft.AddElements:
		for _, e := range step.Elements {
			if err := s.add(step.Set.Name, e); err != nil {
				return fmt.Errorf("%s: %w", elementText(step.Set, e), err)
			}
		}
	case nft.DeleteElements:
		for _, e := range step.Elements {
			old := s.sets[step.Set.Name]
			if old == nil {
				return unix.ENOENT
			}
			if _, ok := old.elements[string(e.Key)]; !ok {
				return fmt.Errorf("%s: %w", elementText(step.Set, e), unix.ENOENT)
			}
			delete(old.elements, string(e.Key))
		}
	}
	return nil
}

func (s *state) deleteSet(name string) error {
	if s.sets[name] == nil {
		return unix.ENOENT
	}
	for _, c := range s.chains {
		for _, r := range c.Rules {
			for _, e := range r {
				if of, ok := setOf(e); ok && of == name {
					return unix.EBUSY
				}
			}
		}
	}
	delete(s.sets, name)
	return nil
}

// addChain makes a chain or appends to the one there is.
func (s *state) addChain(c *nft.Chain) error {
	for _, r := range c.Rules {
		for _, e := range r {
			if name, ok := setOf(e); ok && s.sets[name] == nil {
				return unix.ENOENT
			}
			if v, ok := e.(*expr.Verdict); ok && v.Chain != "" && s.chains[v.Chain] == nil {
				return unix.ENOENT
			}
		}
	}
	if old := s.chains[c.Name]; old != nil {
		old.Rules = slices.Concat(old.Rules, c.Rules)
		return nil
	}
	copied := *c
	s.chains[c.Name] = &copied
	return nil
}

// setOf returns the set that an expression looks into or writes.
func setOf(e expr.Any) (string, bool) {
	switch e := e.(type) {
	case *expr.Lookup:
		return e.SetName, true
	case *expr.Dynset:
		return e.SetName, true
	}
	return "", false
}

func (s *state) deleteChain(name string) error {
	if s.chains[name] == nil {
		return unix.ENOENT
	}
	for _, set := range s.sets {
		for _, e := range set.elements {
			if e.Verdict != nil && e.Verdict.Chain == name {
				return unix.EBUSY
			}
		}
	}
	for _, c := range s.chains {
		for _, r := range c.Rules {
			for _, e := range r {
				if v, ok := e.(*expr.Verdict); ok && v.Chain == name && c.Name != name {
					return unix.EBUSY
				}
			}
		}
	}
	delete(s.chains, name)
	return nil
}

// add adds one element.
func (s *state) add(name string, e nft.Element) error {
	set := s.sets[name]
	switch {
	case set == nil:
		return unix.ENOENT
	case len(e.Key) != width(set.Key), len(e.Value) != width(set.Value), (e.Verdict != nil) != set.Verdicts, e.Timeout > 0 && !set.Timeout:
		return unix.EINVAL
	case e.Verdict != nil && e.Verdict.Chain != "" && s.chains[e.Verdict.Chain] == nil:
		return unix.ENOENT
	}
	if old, ok := set.elements[string(e.Key)]; ok {
		if string(old.Value) != string(e.Value) || e.Verdict != nil && *old.Verdict != *e.Verdict {
			return unix.EEXIST
		}
		return nil
	}
	if set.Size > 0 && len(set.elements) >= int(set.Size) {
		return unix.ENFILE
	}
	set.elements[string(e.Key)] = e
	return nil
}

// Exists reports whether the table is there.
func (t *Table) Exists() (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state != nil, nil
}

// Elements returns the elements of a set, ordered by key.
func (t *Table) Elements(s *nft.Set) ([]nft.Element, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == nil || t.state.sets[s.Name] == nil {
		return nil, unix.ENOENT
	}
	return t.state.sets[s.Name].sorted(), nil
}

func (s *set) sorted() []nft.Element {
	var out []nft.Element
	for _, key := range slices.Sorted(maps.Keys(s.elements)) {
		out = append(out, s.elements[key])
	}
	return out
}

// Watch calls deleted whenever Delete is called, until ctx ends.
func (t *Table) Watch(ctx context.Context, deleted func()) error {
	t.mu.Lock()
	t.deleted = append(t.deleted, deleted)
	t.mu.Unlock()
	<-ctx.Done()
	return nil
}
