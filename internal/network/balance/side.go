package balance

import (
	"log/slog"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/services"
)

// side is the table of one address family: what it shall have, and whether the kernel has what was written.
type side struct {
	kernel      Kernel
	table       *services.Table
	lacking     map[api.Key]services.Part // Services with a Local traffic policy and no endpoint on this node
	written     bool
	deleteFlows func(nft.Family, []services.FlowFilter) error
	log         *slog.Logger
}

// set replaces what a Service asks for.
func (s *side) set(key api.Key, part services.Part) {
	s.table.Set(serviceOwner(key), part.Elements)
	delete(s.lacking, key)
	if part.NoLocalInside || part.NoLocalOutside {
		s.lacking[key] = services.Part{NoLocalInside: part.NoLocalInside, NoLocalOutside: part.NoLocalOutside}
	}
}

// noLocal counts the Services that have no endpoint on this node for clients that their traffic policy keeps there.
func (s *side) noLocal() (internal, external int) {
	for _, part := range s.lacking {
		if part.NoLocalInside {
			internal++
		}
		if part.NoLocalOutside {
			external++
		}
	}
	return internal, external
}

// begin writes the fixed rules if there is no table yet.
func (s *side) begin() {
	exists, err := s.kernel.Exists()
	if err == nil && !exists {
		err = s.replace()
	}
	if err != nil {
		s.log.Error("nftables cannot be written yet", "err", err)
	}
}

// check makes the next step write everything anew if the table is gone.
func (s *side) check() {
	if exists, err := s.kernel.Exists(); err == nil && !exists && s.written {
		s.log.Warn("somebody deleted the nftables table, writing it anew")
		s.written = false
	}
}

// step writes the difference between the table and the kernel, or all of it, and reports which.
func (s *side) step() (full bool, err error) {
	if !s.written {
		return true, s.rewrite()
	}
	c := s.table.Changes()
	if c.Empty() {
		return false, nil
	}
	sticky := s.table.Sticky(c)
	if err := s.kernel.Apply(c); err != nil {
		// Somebody else changed the table (nft flush ruleset is what firewalls do): write it anew.
		s.log.Warn("nftables table was not as expected, writing it anew", "err", err)
		s.written = false
		return true, s.rewrite()
	}
	s.table.Written(c)
	s.forgetFlows(s.table.StaleFlows(c))
	if sticky {
		s.forgetClients()
	}
	return false, nil
}

// rewrite replaces the whole kernel table, and frees those whom the old one led elsewhere.
func (s *side) rewrite() error {
	if err := s.replace(); err != nil {
		return err
	}
	s.forgetFlows([]services.FlowFilter{services.Strays{Table: s.table}})
	s.forgetClients()
	return nil
}

func (s *side) replace() error {
	all := s.table.All()
	if err := s.kernel.Rewrite(all); err != nil {
		return err
	}
	s.table.Rewritten(all)
	s.written = true
	return nil
}

// deleteIdle deletes the picker chains that nobody uses, and reports whether the kernel let it.
func (s *side) deleteIdle() bool {
	c := s.table.Idle()
	if !s.written || c.Empty() {
		return true
	}
	if err := s.kernel.Apply(c); err != nil {
		s.log.Warn("deleting unused nftables chains failed", "err", err)
		return false
	}
	s.table.Written(c)
	return true
}

// forgetFlows makes UDP clients leave endpoints that are gone.
func (s *side) forgetFlows(flows []services.FlowFilter) {
	if err := s.deleteFlows(s.kernel.Family(), flows); err != nil {
		s.log.Warn("UDP clients may stay with an endpoint that is gone until they pause for two minutes", "err", err)
	}
}

// forgetClients makes clients with session affinity leave endpoints that are gone.
func (s *side) forgetClients() {
	remembered, err := s.kernel.Affinity()
	if err == nil {
		err = s.kernel.Forget(s.table.Stale(remembered))
	}
	if err != nil {
		s.log.Warn("clients with session affinity may stay with an endpoint that is gone", "err", err)
	}
}

// elementsOf returns those of elements that are for a family.
func elementsOf(f nft.Family, elements []services.Element) []services.Element {
	var out []services.Element
	for _, e := range elements {
		if of, ok := e.Family(); !ok || of == f {
			out = append(out, e)
		}
	}
	return out
}
