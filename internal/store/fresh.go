package store

import (
	"context"
	"errors"
	"time"
)

// syncAgain is the pause before the backend is asked again.
const syncAgain = 20 * time.Millisecond

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
		err := s.syncPatiently(ctx)
		for _, a := range asking {
			a <- err
		}
	}
}

// syncPatiently is Sync that outlasts an election.
func (s *Store) syncPatiently(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for {
		err := s.Sync(ctx)
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(syncAgain):
		case <-ctx.Done():
			return err
		}
	}
}
