package cronjob

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

func newCronJob(name, schedule string, change ...func(*batchv1.CronJob)) *batchv1.CronJob {
	template := ct.Template(name, "img")
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	cj := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       batchv1.CronJobSpec{Schedule: schedule, JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template}}},
	}
	for _, f := range change {
		f(cj)
	}
	return cj
}

// finish ends a Job.
func finish(c *ct.Cluster, name string, how batchv1.JobConditionType) {
	c.T.Helper()
	ct.Change(c, ns, name, "status", func(j *batchv1.Job) {
		now := metav1.Now()
		j.Status.StartTime = ptr.To(metav1.NewTime(j.CreationTimestamp.Time))
		interim := batchv1.JobFailureTarget
		if how == batchv1.JobComplete {
			interim, j.Status.CompletionTime, j.Status.Succeeded = batchv1.JobSuccessCriteriaMet, &now, 1
		}
		for _, t := range []batchv1.JobConditionType{interim, how} {
			j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
		}
	})
}

// names returns the times of day of the Jobs that there are, by their names.
func times(c *ct.Cluster) string {
	var out []string
	for _, j := range ct.All[*batchv1.Job](c, ns) {
		var minutes int64
		if _, err := fmt.Sscanf(j.Name[strings.LastIndex(j.Name, "-")+1:], "%d", &minutes); err != nil {
			c.T.Fatal(err)
		}
		out = append(out, time.Unix(60*minutes, 0).UTC().Format("15:04"))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// The clock of a test begins at midnight of 2000-01-01, UTC.

func TestJobsAreMadeByTheSchedule(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client, nil))
		ct.Make(c, newCronJob("report", "*/10 * * * *", func(cj *batchv1.CronJob) {
			cj.Spec.JobTemplate.Labels, cj.Spec.JobTemplate.Annotations = map[string]string{"l": "1"}, map[string]string{"a": "1"}
			cj.Spec.TimeZone = ptr.To("Europe/Berlin")
		}))
		c.Pass(9 * time.Minute)
		if s := times(c); s != "" {
			t.Fatalf("jobs for %s before the first time", s)
		}
		c.Pass(time.Minute + time.Second)
		if s := times(c); s != "00:10" {
			t.Fatalf("jobs for %q, want one for 00:10", s)
		}
		cj, j := ct.Get[*batchv1.CronJob](c, ns, "report"), ct.All[*batchv1.Job](c, ns)[0]
		if a := cj.Status.Active; len(a) != 1 || a[0].Name != j.Name || a[0].UID != j.UID || a[0].Kind != "Job" || a[0].APIVersion != "batch/v1" {
			t.Errorf("active: %+v", a)
		}
		if last := cj.Status.LastScheduleTime; last == nil || last.UTC().Format("15:04:05") != "00:10:00" {
			t.Errorf("last scheduled for %v", last)
		}
		if j.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != "2000-01-01T01:10:00+01:00" || j.Annotations["a"] != "1" || j.Labels["l"] != "1" || !metav1.IsControlledBy(j, cj) {
			t.Errorf("job %+v", j.ObjectMeta)
		}
		finish(c, j.Name, batchv1.JobComplete)
		c.Settle()
		cj = ct.Get[*batchv1.CronJob](c, ns, "report")
		if len(cj.Status.Active) != 0 || cj.Status.LastSuccessfulTime == nil {
			t.Errorf("after the job has ended: %+v", cj.Status)
		}
		if e := c.Events("SawCompletedJob"); len(e) != 1 || e[0] != "Saw completed job: "+j.Name+", condition: Complete" {
			t.Errorf("events %v", e)
		}
	})
}

func TestHistoryIsLimited(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client, nil))
		ct.Make(c, newCronJob("a", "* * * * *", func(cj *batchv1.CronJob) {
			cj.Spec.SuccessfulJobsHistoryLimit, cj.Spec.FailedJobsHistoryLimit = ptr.To(int32(2)), ptr.To(int32(1))
		}))
		c.Pass(time.Second)
		for i := range 8 {
			c.Pass(time.Minute)
			for _, j := range ct.All[*batchv1.Job](c, ns) {
				if ended(j) == "" {
					finish(c, j.Name, map[bool]batchv1.JobConditionType{true: batchv1.JobComplete, false: batchv1.JobFailed}[i%2 == 0])
				}
			}
		}
		c.Settle()
		if s := times(c); s != "00:05 00:07 00:08" {
			t.Errorf("jobs for %s are left, want the last two that succeeded and the last that failed", s)
		}
	})
}

func TestConcurrency(t *testing.T) {
	for policy, want := range map[batchv1.ConcurrencyPolicy]string{
		batchv1.AllowConcurrent: "00:01 00:02 00:03", batchv1.ForbidConcurrent: "00:01", batchv1.ReplaceConcurrent: "00:03",
	} {
		ct.Run(t, func(c *ct.Cluster) {
			c.Start(New(c.Client, nil))
			ct.Make(c, newCronJob("a", "* * * * *", func(cj *batchv1.CronJob) { cj.Spec.ConcurrencyPolicy = policy }))
			c.Pass(3*time.Minute + time.Second)
			if s := times(c); s != want {
				t.Errorf("%s: jobs for %s, want %s", policy, s, want)
			}
			if n := len(ct.Get[*batchv1.CronJob](c, ns, "a").Status.Active); n != len(strings.Fields(want)) {
				t.Errorf("%s: %d are active", policy, n)
			}
			if policy != batchv1.ForbidConcurrent {
				return
			}
			finish(c, ct.All[*batchv1.Job](c, ns)[0].Name, batchv1.JobComplete)
			c.Settle()
			if s := times(c); s != "00:01 00:03" {
				t.Errorf("once the first has ended: jobs for %s, want that for the time that waited, too", s)
			}
		})
	}
}

func TestSuspended(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client, nil))
		ct.Make(c, newCronJob("a", "* * * * *", func(cj *batchv1.CronJob) {
			cj.Spec.Suspend, cj.Spec.StartingDeadlineSeconds = ptr.To(true), ptr.To(int64(90))
		}))
		c.Pass(5*time.Minute + 30*time.Second)
		if s := times(c); s != "" {
			t.Fatalf("jobs for %s although suspended", s)
		}
		ct.Change(c, ns, "a", "", func(cj *batchv1.CronJob) { cj.Spec.Suspend = ptr.To(false) })
		c.Settle()
		if s := times(c); s != "00:05" {
			t.Errorf("jobs for %q once resumed, want the last time within the deadline", s)
		}
	})
}

func TestMissedTimes(t *testing.T) {
	for _, tc := range []struct {
		away     time.Duration
		deadline *int64
		want     string
		event    string
	}{
		{30 * time.Minute, nil, "00:30", ""},
		{99 * time.Minute, nil, "01:39", ""},
		{24 * 365 * 20 * time.Hour, nil, "00:00", "TooManyMissedTimes"},
		{24*365*20*time.Hour + 30*time.Second, ptr.To(int64(200)), "00:00", ""},
		{24*365*20*time.Hour + 30*time.Second, ptr.To(int64(20)), "", ""},
	} {
		ct.Run(t, func(c *ct.Cluster) {
			ct.Make(c, newCronJob("a", "* * * * *", func(cj *batchv1.CronJob) { cj.Spec.StartingDeadlineSeconds = tc.deadline }))
			c.Pass(tc.away)
			c.Start(New(c.Client, nil))
			c.Settle()
			if s := times(c); s != tc.want {
				t.Errorf("after %v: jobs for %q, want %q", tc.away, s, tc.want)
			}
			if n := len(c.Events("TooManyMissedTimes")); (n > 0) != (tc.event != "") {
				t.Errorf("after %v: %d warnings of too many missed times", tc.away, n)
			}
		})
	}
}

func TestANewScheduleDoesNotCountFromBefore(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client, nil))
		ct.Make(c, newCronJob("a", "0 * * * *"))
		c.Pass(90 * time.Minute) // 01:30
		ct.Change(c, ns, "a", "", func(cj *batchv1.CronJob) { cj.Spec.Schedule = "15 * * * *" })
		c.Pass(time.Minute)
		finish(c, ct.All[*batchv1.Job](c, ns)[0].Name, batchv1.JobComplete)
		c.Pass(time.Minute)
		if s := times(c); s != "01:00" {
			t.Errorf("jobs for %s right after the schedule has changed, want none for 01:15", s)
		}
		c.Pass(45 * time.Minute)
		if s := times(c); s != "01:00 02:15" {
			t.Errorf("jobs for %s, want one for 02:15", s)
		}
	})
}

func TestWhatCannotBeReadIsReportedOnce(t *testing.T) {
	for name, change := range map[string]func(*batchv1.CronJob){
		"UnparseableSchedule": func(cj *batchv1.CronJob) { cj.Spec.Schedule = "never" },
		"UnknownTimeZone":     func(cj *batchv1.CronJob) { cj.Spec.TimeZone = ptr.To("Mars/Olympus") },
		"InvalidSchedule":     func(cj *batchv1.CronJob) { cj.Spec.Schedule = "59 23 31 2 *" },
	} {
		ct.Run(t, func(c *ct.Cluster) {
			// The front door refuses most of it; an older one may have let it in.
			bad := ct.Make(c, newCronJob("a", "* * * * *")).DeepCopy()
			change(bad)
			looks := 0
			r := New(&showing{Client: c.Client, cj: bad, looks: &looks}, nil)
			c.Start(r)
			c.Pass(24 * time.Hour)
			if looks != 1 || len(c.Events(name)) != 1 {
				t.Errorf("%s: %d looks and %d events in a day, want one", name, looks, len(c.Events(name)))
			}
		})
	}
}

// showing is a client that shows another CronJob than is stored.
type showing struct {
	client.Client
	cj    *batchv1.CronJob
	looks *int
}

func (s *showing) Get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error) {
	if res == api.CronJobs {
		*s.looks++
		return s.cj, nil
	}
	return s.Client.Get(ctx, res, key)
}

func TestARestartMakesNoSecondJob(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, newCronJob("a", "*/5 * * * *", func(cj *batchv1.CronJob) { cj.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent }))
		c.Pass(6 * time.Minute)
		_, _ = New(&noStatus{c.Client}, nil).Reconciler.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "a"})
		if n := len(ct.Get[*batchv1.CronJob](c, ns, "a").Status.Active); n != 0 || times(c) != "00:05" {
			t.Fatalf("%d active, jobs for %s", n, times(c))
		}
		c.Start(New(c.Client, nil))
		c.Settle()
		s := ct.Get[*batchv1.CronJob](c, ns, "a").Status
		if times(c) != "00:05" || len(s.Active) != 1 || s.LastScheduleTime == nil || len(c.Events("UnexpectedJob")) != 0 {
			t.Errorf("jobs for %s, status %+v, events %v", times(c), s, c.Events("UnexpectedJob"))
		}
	})
}

// A controller that is killed after any of its writes leaves nothing that the next one cannot go on from: each time has one Job, the one before is
// replaced, and the status names those that run.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	for writes := range 5 {
		ct.Run(t, func(c *ct.Cluster) {
			ct.Make(c, newCronJob("a", "*/5 * * * *", func(cj *batchv1.CronJob) {
				cj.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent
				cj.Spec.SuccessfulJobsHistoryLimit = ptr.To(int32(1))
			}))
			look := func(left int) {
				_, _ = New(&ct.Killed{Client: c.Client, Left: left}, nil).Reconciler.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "a"})
			}
			for i := range 6 {
				c.Pass(5*time.Minute + time.Second)
				if i%2 == 1 { // every other one ends before it is replaced
					for _, j := range ct.All[*batchv1.Job](c, ns) {
						if len(j.Status.Conditions) == 0 {
							finish(c, j.Name, batchv1.JobComplete)
						}
					}
				}
				for range 4 {
					look(writes)
				}
				look(100)
				look(100)
			}
			s := ct.Get[*batchv1.CronJob](c, ns, "a").Status
			if times(c) != "00:25 00:30" || len(s.Active) != 1 || s.LastScheduleTime == nil || s.LastScheduleTime.UTC().Format("15:04") != "00:30" {
				t.Errorf("%d writes at a time: jobs for %s, status %+v", writes, times(c), s)
			}
		})
	}
}

// noStatus is a client that writes no status.
type noStatus struct{ client.Client }

func (noStatus) Update(context.Context, api.Object, string) (api.Object, error) {
	return nil, context.Canceled
}

func TestJobsThatAreNotOfTheSchedule(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client, nil))
		cj := ct.Make(c, newCronJob("a", "0 0 1 1 *"))
		manual := newJob(cj, time.Now())
		manual.Name, manual.Annotations = "a-manual", map[string]string{"cronjob.kubernetes.io/instantiate": "manual"}
		ct.Make(c, manual)
		c.Settle()
		if e := c.Events("UnexpectedJob"); len(e) != 1 || len(ct.Get[*batchv1.CronJob](c, ns, "a").Status.Active) != 0 {
			t.Errorf("events %v", e)
		}
		finish(c, "a-manual", batchv1.JobComplete)
		c.Settle()
		if ct.Get[*batchv1.CronJob](c, ns, "a").Status.LastSuccessfulTime == nil {
			t.Error("its success is not recorded")
		}
	})
}
