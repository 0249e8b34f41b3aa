package cronjob

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/utils/ptr"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	out, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRecent looks at the last time of a schedule, with clocks that are put forward and back: Berlin does so at 01:00 UTC, on 2026-03-29
// and on 2026-10-25.
func TestRecent(t *testing.T) {
	for _, tc := range []struct {
		schedule, zone, since, now, want string
		missed                           int
	}{
		{"0 * * * *", "", "2026-01-01 00:30:00", "2026-01-01 00:59:59", "", 0},
		{"0 * * * *", "", "2026-01-01 00:30:00", "2026-01-01 01:00:00", "2026-01-01 01:00:00", 1},
		{"0 * * * *", "", "2026-01-01 01:00:00", "2026-01-01 01:30:00", "", 0},
		{"0 * * * *", "", "2026-01-01 00:30:00", "2026-01-01 05:10:00", "2026-01-01 05:00:00", 5},
		{"30 6-16/4 * * 1-5", "", "2026-01-02 14:30:00", "2026-01-05 07:00:00", "2026-01-05 06:30:00", 1}, // over a weekend
		{"* * * * *", "", "1990-01-01 00:00:00", "2026-01-05 07:00:30", "2026-01-05 07:00:00", manyMissed + 1},
		{"* * * 1 *", "", "1990-01-01 00:00:00", "2026-12-05 07:00:30", "2026-01-31 23:59:00", manyMissed + 1},
		{"@every 1h30m", "", "2026-01-01 00:10:00", "2026-01-01 04:00:00", "2026-01-01 03:10:00", 2},
		{"@every 7m", "", "2026-01-01 00:00:00", "2026-02-01 00:00:00", "2026-01-31 23:59:00", manyMissed + 1},
		{"@daily", "", "2026-01-01 00:10:00", "2026-01-03 04:00:00", "2026-01-03 00:00:00", 2},
		{"0 12 * * *", "Europe/Berlin", "2026-03-28 12:00:00", "2026-03-29 10:30:00", "2026-03-29 10:00:00", 1}, // now in summer
		{"0 12 * * *", "Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25 11:30:00", "2026-10-25 11:00:00", 1},
		{"30 2 * * *", "Europe/Berlin", "2026-03-28 12:00:00", "2026-03-29 12:00:00", "", 0},                    // there is no such time
		{"30 2 * * *", "Europe/Berlin", "2026-10-24 12:00:00", "2026-10-25 12:00:00", "2026-10-25 01:30:00", 2}, // there are two
	} {
		cj := &batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: tc.schedule}}
		if tc.zone != "" {
			cj.Spec.TimeZone = ptr.To(tc.zone)
		}
		s, err := parse(cj)
		if err != nil {
			t.Fatal(err)
		}
		got, missed, err := recent(s, at(t, tc.since), at(t, tc.now))
		text := ""
		if !got.IsZero() {
			text = got.UTC().Format("2006-01-02 15:04:05")
		}
		if text != tc.want || missed != tc.missed || err != nil {
			t.Errorf("%q %s from %s to %s: %q, %d missed, %v; want %q, %d", tc.schedule, tc.zone, tc.since, tc.now, text, missed, err, tc.want, tc.missed)
		}
	}
}

func TestSchedulesThatCannotBeRead(t *testing.T) {
	for _, schedule := range []string{"", "TZ=0", "CRON_TZ=", "* * * *", "61 * * * *", "@every", "@sometimes", "TZ=Mars/Olympus * * * * *"} {
		if s, err := parse(&batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: schedule}}); err == nil {
			t.Errorf("%q is read as %+v", schedule, s)
		}
	}
	s, err := parse(&batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 0 30 2 *"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := recent(s, at(t, "2026-01-01 00:00:00"), at(t, "2027-01-01 00:00:00")); err == nil {
		t.Error("the 30th of February comes")
	}
}
