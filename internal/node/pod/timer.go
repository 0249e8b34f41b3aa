package pod

import "time"

// arm sets the one timer of the pod to the next thing that is due: a retry, a probe, a token. w.mu must be held.
func (w *Worker) arm(now time.Time) {
	at := w.turn.wake
	if next := w.nextProbe(now); !next.IsZero() && (at.IsZero() || next.Before(at)) {
		at = next
	}
	if !w.made.renew.IsZero() && w.mem.Terminating.IsZero() && (at.IsZero() || w.made.renew.Before(at)) {
		at = w.made.renew
	}
	if at.IsZero() || w.host.Tasks.Context().Err() != nil {
		if w.turn.timer != nil {
			w.turn.timer.Stop()
			w.turn.timerAt = time.Time{}
		}
		return
	}
	if at.Equal(w.turn.timerAt) {
		return
	}
	w.turn.timerAt = at
	d := max(at.Sub(now), 0)
	if w.turn.timer == nil {
		w.turn.timer = time.AfterFunc(d, w.tick)
	} else {
		w.turn.timer.Reset(d)
	}
}

// tick is the timer: most often only a probe is due, which needs no look at the pod.
func (w *Worker) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn.timerAt = time.Time{}
	if w.host.Tasks.Context().Err() != nil {
		return
	}
	now := time.Now()
	if !w.made.renew.IsZero() && !now.Before(w.made.renew) {
		w.made.stale = true
		w.made.renew = time.Time{}
		w.notifyLocked()
		return
	}
	if !w.turn.wake.IsZero() && !now.Before(w.turn.wake) {
		w.notifyLocked()
		return
	}
	w.arm(now)
}

func (w *Worker) stopTimer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.turn.timer != nil {
		w.turn.timer.Stop()
	}
}

// later makes the worker look again after d. w.mu must be held.
func (w *Worker) later(d time.Duration) {
	now := time.Now()
	if at := now.Add(d); w.turn.wake.IsZero() || at.Before(w.turn.wake) {
		w.turn.wake = at
	}
	w.arm(now)
}
