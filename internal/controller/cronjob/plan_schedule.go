package cronjob

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

const (
	// late is how long after the scheduled time a look is taken, so that a clock that is a little behind finds the time passed.
	late = 100 * time.Millisecond
	// manyMissed is the number of missed times above which a CronJob is warned of.
	manyMissed = 100
	// shortestLook is the first stretch before now in which the last scheduled time is looked for.
	shortestLook = time.Minute
)

var errNever = errors.New("time difference between two schedules is less than 1 second")

// parse reads the schedule of a CronJob, in its time zone. The library panics on some input.
func parse(cj *batchv1.CronJob) (s cron.Schedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	text := cj.Spec.Schedule
	if zone := cj.Spec.TimeZone; zone != nil && !strings.Contains(text, "TZ") {
		text = "TZ=" + *zone + " " + text
	}
	return cron.ParseStandard(text)
}

// recent returns the last time of the schedule after since and not after now, the zero time if there is none, and how many there are, up to
// manyMissed+1. A schedule without any time, such as the 31st of February, is an error.
func recent(s cron.Schedule, since, now time.Time) (last time.Time, missed int, err error) {
	t := s.Next(since)
	if t.IsZero() {
		return time.Time{}, 0, errNever
	}
	for ; !t.IsZero() && !t.After(now) && missed <= manyMissed; t = s.Next(t) {
		last = t
		missed++
	}
	if missed <= manyMissed {
		return last, missed, nil
	}
	if every, ok := s.(cron.ConstantDelaySchedule); ok {
		return last.Add(now.Sub(last) / every.Delay * every.Delay), missed, nil
	}
	// There may be any number of them: look back from now, further each time.
	for look := shortestLook; look < now.Sub(last); look *= 2 {
		if t := s.Next(now.Add(-look)); !t.IsZero() && !t.After(now) {
			last = t
			break
		}
	}
	for t := s.Next(last); !t.IsZero() && !t.After(now); t = s.Next(t) {
		last = t
	}
	return last, missed, nil
}

// next returns how long it is from now until the next time of the schedule is looked at; last is the time before, or when times began to
// count.
func next(s cron.Schedule, last, now time.Time) time.Duration {
	t := s.Next(last)
	if !t.After(now) {
		t = s.Next(now)
	}
	if t.IsZero() {
		return 0
	}
	return t.Add(late).Sub(now)
}
