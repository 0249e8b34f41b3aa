package store

import "context"

// SharedWith tells the store whether others write to its backend, too; it is asked at each Fresh. Call it before Run.
func (s *Store) SharedWith(others func() bool) { s.others = others }

// Fresh returns when the copy holds everything that was acknowledged, to anyone, before the call. Where nobody else writes that is so
// already: a write of this process is acknowledged when the copy has it.
func (s *Store) Fresh(ctx context.Context) error {
	if s.others == nil || !s.others() {
		return nil
	}
	answer := make(chan error, 1)
	select {
	case s.questions <- answer:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return ErrEnded
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return ErrEnded
	}
}

// confirm answers those who ask for Fresh, all who wait with one question to the backend: its answer is newer than their calls.
func (s *Store) confirm(ctx context.Context) error {
	for {
		var asking []chan error
		select {
		case a := <-s.questions:
			asking = append(asking, a)
		case <-ctx.Done():
			return nil
		}
	more:
		for {
			select {
			case a := <-s.questions:
				asking = append(asking, a)
			default:
				break more
			}
		}
		within, cancel := context.WithTimeout(ctx, commitTimeout)
		err := s.Sync(within)
		cancel()
		for _, a := range asking {
			a <- err
		}
	}
}
