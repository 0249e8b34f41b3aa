package guard

import (
	"log/slog"

	"github.com/knarr-io/knarr/internal/network/policy"
)

// side is the table of one address family: what it shall have, and whether the kernel has what was written.
type side struct {
	kernel  *Kernel
	model   *policy.Model
	written bool
	log     *slog.Logger
}

// check makes the next step write everything anew if the table is gone, and reports whether it is.
func (s *side) check() (gone bool) {
	if exists, err := s.kernel.Exists(); err == nil && !exists && s.written {
		s.log.Warn("somebody deleted the nftables table of network policies, writing it anew")
		s.written = false
		return true
	}
	return false
}

// step writes the difference between the model and the kernel, or all of it, and reports whether there was any. Without policies
// there is no table.
func (s *side) step(policies bool) (wrote bool, err error) {
	if !policies {
		s.written = false
		exists, err := s.kernel.Exists()
		if err == nil && exists {
			err = s.kernel.Remove()
		}
		return exists, err
	}
	if !s.written {
		return true, s.rewrite()
	}
	c := s.model.Changes()
	if c.Empty() {
		s.model.Written()
		return false, nil
	}
	if err := s.kernel.Apply(c); err != nil {
		// Somebody else changed the table (nft flush ruleset is what firewalls do): write it anew.
		s.log.Warn("nftables table of network policies was not as expected, writing it anew", "err", err)
		s.written = false
		return true, s.rewrite()
	}
	s.model.Written()
	return true, nil
}

func (s *side) rewrite() error {
	if err := s.kernel.Rewrite(s.model.All()); err != nil {
		return err
	}
	s.model.Rewritten()
	s.written = true
	return nil
}
