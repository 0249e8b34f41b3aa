package workloads

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	upstream "k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/cronjob"
)

func kubernetesCronJobs(ctx context.Context, kube clientset.Interface, f informers.SharedInformerFactory) (func(context.Context, int), error) {
	c, err := upstream.NewControllerV2(ctx, f.Batch().V1().Jobs(), f.Batch().V1().CronJobs(), kube)
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}

func drawSchedule(r *rand.Rand) string {
	return pick(r, "*/5 * * * *", "*/7 1-3 * * *", "0 * * * *", "30 2 * * *", "30 1,2 * * 0", "15 */6 * * *", "0 0 1 * *", "59 23 * * 6", "@hourly", "@daily", "@every 90m", "0 0 31 2 *")
}

// drawZone is a time zone, or none: with daylight saving by an hour, by half of one, in the other half of the year, and without.
func drawZone(r *rand.Rand) *string {
	return pick(r, nil, ptr.To("Europe/Berlin"), ptr.To("America/New_York"), ptr.To("Australia/Lord_Howe"), ptr.To("Asia/Kathmandu"), ptr.To("Etc/UTC"))
}

func drawDeadline(r *rand.Rand) *int64 {
	return pick(r, nil, nil, ptr.To(int64(5)), ptr.To(int64(100)), ptr.To(int64(3600)), ptr.To(int64(200000)))
}

func drawCronJob(r *rand.Rand) *batchv1.CronJob {
	return &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "tick"}, Spec: batchv1.CronJobSpec{
		Schedule: drawSchedule(r), TimeZone: drawZone(r), StartingDeadlineSeconds: drawDeadline(r), Suspend: ptr.To(r.IntN(6) == 0),
		ConcurrencyPolicy:          pick(r, batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent),
		SuccessfulJobsHistoryLimit: ptr.To(int32(r.IntN(4))), FailedJobsHistoryLimit: ptr.To(int32(r.IntN(3))),
		JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}}}
}

func (s *served) cronJob() *batchv1.CronJob {
	cj, err := client.Get[*batchv1.CronJob](s.t.Context(), s.Local, api.Key{Namespace: metav1.NamespaceDefault, Name: "tick"})
	if err != nil {
		s.t.Fatal(err)
	}
	return cj
}

func (s *served) jobs() []*batchv1.Job {
	jobs, err := client.List[*batchv1.Job](s.t.Context(), s.Local, client.ListOptions{Namespace: metav1.NamespaceDefault})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.SortFunc(jobs, func(a, b *batchv1.Job) int { return strings.Compare(a.Name, b.Name) })
	return jobs
}

// warnings lists the reasons of warnings, each once.
func (s *served) warnings() []string {
	events, err := client.List[*corev1.Event](s.t.Context(), s.Local, client.ListOptions{Namespace: metav1.NamespaceDefault})
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		if e.Type == corev1.EventTypeWarning {
			out = append(out, e.Reason)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// silent lists what Kubernetes warns of and Knarr does not. Of events at one moment of virtual time Kubernetes stores one, as it names them by the
// time; so Knarr may report more.
func silent(theirs, ours *served) []string {
	known := ours.warnings()
	return slices.DeleteFunc(theirs.warnings(), func(e string) bool { return slices.Contains(known, e) || explained()[e] != "" })
}

// explained are the warnings that Knarr does not share, and why.
func explained() map[string]string {
	return map[string]string{
		"UnexpectedJob":      "Kubernetes forgets a Job that it made just before it ended; Knarr finds it again by its name and the time that it was made for",
		"TooManyMissedTimes": "Kubernetes takes the first two runs for the distance of all; Knarr counts them",
	}
}

// showCronJob writes what there is: the Jobs and the status.
func (s *served) showCronJob() string {
	var b strings.Builder
	for _, j := range s.jobs() {
		fmt.Fprintf(&b, "  %s for %s", j.Name, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
		for _, c := range j.Status.Conditions {
			fmt.Fprintf(&b, " %s", c.Type)
		}
		b.WriteString("\n")
	}
	st := s.cronJob().Status
	at := func(t *metav1.Time) string {
		if t == nil {
			return "never"
		}
		return t.UTC().Format(time.RFC3339)
	}
	var active []string
	for _, ref := range st.Active {
		active = append(active, ref.Name)
	}
	slices.Sort(active)
	fmt.Fprintf(&b, "  active %v, scheduled %s, succeeded %s", active, at(st.LastScheduleTime), at(st.LastSuccessfulTime))
	return b.String()
}

// end is the status of a Job that has completed or failed.
func endJob(j *batchv1.Job, well bool) {
	now := metav1.NewTime(time.Now())
	add := func(types ...batchv1.JobConditionType) {
		for _, t := range types {
			j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
		}
	}
	if j.Status.StartTime == nil {
		j.Status.StartTime = &now
	}
	if well {
		j.Status.CompletionTime, j.Status.Succeeded = &now, 1
		add(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)
		return
	}
	j.Status.Failed = 1
	add(batchv1.JobFailureTarget, batchv1.JobFailed)
}

func drawCronEvent(r *rand.Rand, s *served) happening {
	open := slices.DeleteFunc(s.jobs(), func(j *batchv1.Job) bool { return len(j.Status.Conditions) > 0 })
	if len(open) > 0 && r.IntN(3) > 0 {
		name := open[r.IntN(len(open))].Name
		key := api.Key{Namespace: metav1.NamespaceDefault, Name: name}
		if r.IntN(8) == 0 {
			return happening{"somebody deletes " + name, func(s *served) {
				background := metav1.DeletePropagationBackground
				if err := client.Delete[*batchv1.Job](s.t.Context(), s.Local, key, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
					s.t.Fatal(err)
				}
			}}
		}
		well := r.IntN(3) > 0
		return happening{fmt.Sprintf("%s ends well: %v", name, well), func(s *served) {
			if _, err := client.Mutate(s.t.Context(), s.Local, key, "status", func(j *batchv1.Job) bool { endJob(j, well); return true }); err != nil {
				s.t.Fatal(err)
			}
		}}
	}
	change := func(what string, f func(*batchv1.CronJobSpec)) happening {
		return happening{what, func(s *served) {
			_, err := client.Mutate(s.t.Context(), s.Local, api.KeyOf(s.cronJob()), "", func(cj *batchv1.CronJob) bool { f(&cj.Spec); return true })
			if err != nil && !apierrors.IsInvalid(err) {
				s.t.Fatal(err)
			}
		}}
	}
	switch r.IntN(12) {
	case 0:
		return change("suspended or resumed", func(c *batchv1.CronJobSpec) { c.Suspend = ptr.To(!*c.Suspend) })
	case 1:
		text := drawSchedule(r)
		return change("schedule "+text, func(c *batchv1.CronJobSpec) { c.Schedule = text })
	case 2:
		zone := drawZone(r)
		return change("zone "+ptr.Deref(zone, "-"), func(c *batchv1.CronJobSpec) { c.TimeZone = zone })
	case 3:
		deadline := drawDeadline(r)
		return change(fmt.Sprint("deadline ", ptr.Deref(deadline, -1)), func(c *batchv1.CronJobSpec) { c.StartingDeadlineSeconds = deadline })
	}
	return happening{"nothing", func(*served) {}}
}

// beginnings are moments at which virtual time may begin, counted from that of testing/synctest: one is just before daylight saving begins or
// ends somewhere.
func beginnings() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{0, 84*day + 22*time.Hour, 92*day + 4*time.Hour, 301*day + 20*time.Hour, 85*day + 14*time.Hour, 239*day + 13*time.Hour, 59 * day}
}

// skips reports whether Kubernetes starts nothing where a run is due. After a time away it counts the runs missed by the distance between the first
// two, and looks for the last where it should be by that; where the schedule is not even, as with hours of the day or daylight saving, there may be none
// from there on. Knarr finds the last one.
func skips(theirs, ours *served) bool {
	had := map[string]bool{}
	for _, j := range theirs.jobs() {
		had[j.Name] = true
	}
	var more []*batchv1.Job
	for _, j := range ours.jobs() {
		if !had[j.Name] {
			more = append(more, j)
		}
	}
	last := theirs.cronJob().Status.LastScheduleTime
	return len(more) == 1 && (last == nil || last.Before(ours.cronJob().Status.LastScheduleTime)) && !even(theirs.cronJob().Spec.Schedule)
}

// retroactive reports whether Kubernetes starts a run for a time at which the CronJob did not have its present schedule yet.
func retroactive(theirs, ours *served, changed time.Time) bool {
	has := ours.jobs()
	return slices.ContainsFunc(theirs.jobs(), func(j *batchv1.Job) bool {
		at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
		missing := !slices.ContainsFunc(has, func(o *batchv1.Job) bool { return o.Name == j.Name })
		return err == nil && missing && at.Before(changed) && !j.CreationTimestamp.Time.Before(changed.Truncate(time.Second))
	})
}

// anchored reports whether a CronJob asks for runs so and so long after each other. After a change of the schedule Knarr counts from the change, Kubernetes
// from the last run of the schedule before.
func anchored(s *served) bool { return strings.HasPrefix(s.cronJob().Spec.Schedule, "@every") }

// even reports whether a schedule always has the same time between two runs.
func even(schedule string) bool {
	return slices.Contains([]string{"*/5 * * * *", "0 * * * *", "@hourly", "@every 90m"}, schedule)
}

// TestCronJobsLiveAsInKubernetes: after each event, and after hours in which the controllers were away, both have made the same Jobs for the
// same times, and report the same.
func TestCronJobsLiveAsInKubernetes(t *testing.T) {
	events, made, departures := 0, 0, 0
	n := lives(t, 10, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 4))
		time.Sleep(pick(r, beginnings()...) + time.Duration(r.IntN(7200))*time.Second)
		theirs, ours := newServed(t), newServed(t)
		start := func() (stop func()) {
			a, b := theirs.theirs(kubernetesCronJobs), ours.ours(cronjob.New(ours.Local, nil))
			return func() { a(); b() }
		}
		stop := start()
		cj := drawCronJob(r)
		for _, s := range []*served{theirs, ours} {
			clienttest.Create(t, s.Local, cj.DeepCopy())
		}
		log := []string{fmt.Sprintf("%s in %s, deadline %d, %s, keeps %d and %d, suspended %v", cj.Spec.Schedule, ptr.Deref(cj.Spec.TimeZone, "-"), ptr.Deref(cj.Spec.StartingDeadlineSeconds, -1),
			cj.Spec.ConcurrencyPolicy, *cj.Spec.SuccessfulJobsHistoryLimit, *cj.Spec.FailedJobsHistoryLimit, *cj.Spec.Suspend)}
		names, changed, edited := map[string]bool{}, time.Now(), false
		for range 40 {
			want, got := alike(theirs, ours, (*served).showCronJob)
			if want != got && (skips(theirs, ours) || retroactive(theirs, ours, changed) || edited && anchored(ours)) {
				departures++
				return
			}
			if want != got {
				t.Errorf("Kubernetes has\n%s\nwhere Knarr has\n%s\nafter\n%s", want, got, strings.Join(log, "\n"))
				return
			}
			if missing := silent(theirs, ours); len(missing) > 0 {
				t.Errorf("Knarr does not report\n  %s\nafter\n%s", strings.Join(missing, "\n  "), strings.Join(log, "\n"))
				return
			}
			for _, j := range theirs.jobs() {
				names[j.Name] = true
			}
			if r.IntN(10) == 0 {
				stop()
				away := pick(r, time.Minute, time.Hour, 26*time.Hour, 80*time.Hour) + time.Duration(r.IntN(60))*time.Second
				time.Sleep(away) // virtual
				stop = start()
				log = append(log, fmt.Sprintf("%s: away for %v", time.Now().UTC().Format(time.DateTime), away))
				continue
			}
			e := drawCronEvent(r, theirs)
			if strings.HasPrefix(e.name, "schedule") || strings.HasPrefix(e.name, "zone") {
				changed, edited = time.Now(), true
			}
			e.do(theirs)
			e.do(ours)
			log = append(log, fmt.Sprintf("%s: %s", time.Now().UTC().Format(time.DateTime), e.name))
			events++
			time.Sleep(pick(r, 31*time.Second, 4*time.Minute, 23*time.Minute, 61*time.Minute, 5*time.Hour)) // virtual
		}
		made += len(names)
	})
	t.Logf("%d events in %d histories, %d of which ended with a departure, %d Jobs", events, n, departures, made)
	if n > 20 && (made < n*5 || departures > n/2) {
		t.Errorf("%d Jobs in %d histories, %d of which ended with a departure: what is drawn tests little", made, n, departures)
	}
}
