package balance

import (
	"log/slog"

	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/services"
)

// side is the table of one address family: what it shall have, and whether the kernel has what was written.
type side struct {
	kernel      Kernel
	table       *services.Table
	written     bool
	deleteFlows func(nft.Family, []services.FlowFilter) error
	log         *slog.Logger
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

// step writes the difference between the table and the kernel, or all of it.
func (s *side) step() error {
	if !s.written {
		return s.rewrite()
	}
	c := s.table.Changes()
	if c.Empty() {
		return nil
	}
	sticky := s.table.Sticky(c)
	if err := s.kernel.Apply(c); err != nil {
		// Somebody else changed the table (nft flush ruleset is what firewalls do): write it anew.
		s.log.Warn("nftables table was not as expected, writing it anew", "err", err)
		s.written = false
		return s.rewrite()
	}
	s.table.Written(c)
	s.forgetFlows(s.table.StaleFlows(c))
	if sticky {
		s.forgetClients()
	}
	return nil
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

// deleteIdle deletes the picker chains that nobody uses.
func (s *side) deleteIdle() {
	c := s.table.Idle()
	if !s.written || c.Empty() {
		return
	}
	if err := s.kernel.Apply(c); err != nil {
		s.log.Warn("deleting unused nftables chains failed", "err", err)
		return
	}
	s.table.Written(c)
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
