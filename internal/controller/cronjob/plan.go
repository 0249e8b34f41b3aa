package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// actions is what to do about a CronJob, in this order.
type actions struct {
	Forget []*batchv1.Job // ended Jobs beyond the limits of history
	// Replace are running Jobs that make room for the one to create.
	Replace []*batchv1.Job
	Create  *batchv1.Job
	Due     time.Time // what Create is scheduled for

	Status batchv1.CronJobStatus // without the Job to create
	Events []event.Event
	After  time.Duration
}

// say adds an event to act.
func (act *actions) say(e event.Event) { act.Events = append(act.Events, e) }

// plan compares a CronJob with the Jobs that it controls. Times of its schedule count after since, when it got this schedule.
func plan(cj *batchv1.CronJob, jobs []*batchv1.Job, since, now time.Time) actions {
	act := actions{Status: *cj.Status.DeepCopy()}
	follow(cj, jobs, &act)
	act.Forget = append(beyond(jobs, batchv1.JobComplete, cj.Spec.SuccessfulJobsHistoryLimit), beyond(jobs, batchv1.JobFailed, cj.Spec.FailedJobsHistoryLimit)...)
	if cj.DeletionTimestamp != nil {
		return act
	}
	if zone := cj.Spec.TimeZone; zone != nil {
		if _, err := time.LoadLocation(*zone); err != nil {
			act.say(event.Warning(cj, "UnknownTimeZone", "invalid timeZone: %q: %s", *zone, err))
			return act
		}
	}
	if ptr.Deref(cj.Spec.Suspend, false) {
		return act
	}
	if strings.Contains(cj.Spec.Schedule, "TZ") {
		act.say(event.Warning(cj, "UnsupportedSchedule", "CRON_TZ or TZ used in schedule %q is not officially supported, see "+
			"https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details", cj.Spec.Schedule))
	}
	schedule, err := parse(cj)
	if err != nil {
		act.say(event.Warning(cj, "UnparseableSchedule", "unparseable schedule: %q : %s", cj.Spec.Schedule, err))
		return act
	}
	counts := latest(since, cj.CreationTimestamp.Time)
	if t := act.Status.LastScheduleTime; t != nil {
		counts = latest(since, t.Time)
	}
	due, missed, err := recent(schedule, earliest(cj, counts, now), now)
	if err != nil {
		act.say(event.Warning(cj, "InvalidSchedule", "invalid schedule: %s : %s", cj.Spec.Schedule, err))
		return act
	}
	act.After = next(schedule, latest(counts, due), now)
	if due.IsZero() {
		return act
	}
	if missed > manyMissed {
		act.say(event.Warning(cj, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"))
	}
	start(cj, jobs, due, now, &act)
	return act
}

// earliest returns after which time the schedule counts, which the deadline for starting moves on.
func earliest(cj *batchv1.CronJob, counts, now time.Time) time.Time {
	if s := cj.Spec.StartingDeadlineSeconds; s != nil {
		return latest(counts, now.Add(-amount.Seconds(*s)))
	}
	return counts
}

// start plans the Job that is due, unless it is too late, was made already or has to wait for another.
func start(cj *batchv1.CronJob, jobs []*batchv1.Job, due, now time.Time, act *actions) {
	name := jobName(cj, due)
	running := slices.ContainsFunc(act.Status.Active, func(r corev1.ObjectReference) bool { return r.Name == name })
	switch deadline := cj.Spec.StartingDeadlineSeconds; {
	case deadline != nil && due.Add(amount.Seconds(*deadline)).Before(now):
		act.say(event.Warning(cj, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z)))
	case running || act.Status.LastScheduleTime != nil && act.Status.LastScheduleTime.Time.Equal(due):
	case cj.Spec.ConcurrencyPolicy == batchv1.ForbidConcurrent && len(act.Status.Active) > 0:
		act.say(event.Normal(cj, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid"))
	default:
		act.Due, act.Create = due, newJob(cj, due)
		if cj.Spec.ConcurrencyPolicy == batchv1.ReplaceConcurrent {
			for _, j := range jobs {
				if active(act.Status.Active, j.UID) {
					act.Replace = append(act.Replace, j)
				}
			}
		}
	}
}

// follow brings the status up to date with what has become of the Jobs.
func follow(cj *batchv1.CronJob, jobs []*batchv1.Job, act *actions) {
	uids := map[types.UID]bool{}
	for _, j := range jobs {
		uids[j.UID] = true
		how, listed := ended(j), active(act.Status.Active, j.UID)
		switch at, own := scheduled(cj, j); {
		case how != "" && listed:
			act.Status.Active = without(act.Status.Active, j.UID)
			act.say(event.Normal(cj, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, how))
		case how != "" || listed:
		case own: // made just before the status could be written
			act.Status.Active = append(act.Status.Active, event.Reference(j))
			if last := act.Status.LastScheduleTime; last == nil || last.Time.Before(at) {
				act.Status.LastScheduleTime = ptr.To(metav1.NewTime(at))
			}
		default:
			act.say(event.Warning(cj, "UnexpectedJob", "Saw a job that the controller did not create or forgot: %s", j.Name))
		}
		if end := j.Status.CompletionTime; how == batchv1.JobComplete && end != nil {
			if had := act.Status.LastSuccessfulTime; had == nil || end.After(had.Time) {
				act.Status.LastSuccessfulTime = end.DeepCopy()
			}
		}
	}
	for _, ref := range act.Status.Active {
		if !uids[ref.UID] {
			act.say(event.Normal(cj, "MissingJob", "Active job went missing: %v", ref.Name))
			act.Status.Active = without(act.Status.Active, ref.UID)
		}
	}
}

// beyond returns the oldest Jobs that ended in one way, beyond a limit.
func beyond(jobs []*batchv1.Job, how batchv1.JobConditionType, limit *int32) []*batchv1.Job {
	if limit == nil {
		return nil
	}
	old := slices.DeleteFunc(slices.Clone(jobs), func(j *batchv1.Job) bool { return ended(j) != how })
	slices.SortFunc(old, func(a, b *batchv1.Job) int {
		switch s, t := a.Status.StartTime, b.Status.StartTime; {
		case s == nil && t != nil:
			return 1
		case s != nil && t == nil:
			return -1
		case s != nil && !s.Time.Equal(t.Time):
			return s.Compare(t.Time)
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return old[:max(0, len(old)-int(*limit))]
}

// jobName is the name of the Job for a time of the schedule, of which there is one a minute at most: it cannot be made twice.
func jobName(cj *batchv1.CronJob, due time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, due.Unix()/60)
}

// newJob returns the Job for a time of the schedule.
func newJob(cj *batchv1.CronJob, due time.Time) *batchv1.Job {
	template := cj.Spec.JobTemplate.DeepCopy()
	annotations := map[string]string{}
	maps.Copy(annotations, template.Annotations)
	zone, err := time.LoadLocation(ptr.Deref(cj.Spec.TimeZone, ""))
	if err != nil {
		zone = time.UTC
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = due.In(zone).Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cj.Namespace, Name: jobName(cj, due), Labels: template.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, batchv1.SchemeGroupVersion.WithKind("CronJob"))},
		},
		Spec: template.Spec,
	}
}

// scheduled returns for which time this controller made a Job of cj, if it did.
func scheduled(cj *batchv1.CronJob, j *batchv1.Job) (at time.Time, own bool) {
	at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
	return at, err == nil && j.Name == jobName(cj, at)
}

// ended returns whether a Job is Complete or Failed, or nothing.
func ended(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

func active(refs []corev1.ObjectReference, uid types.UID) bool {
	return slices.ContainsFunc(refs, func(r corev1.ObjectReference) bool { return r.UID == uid })
}

func without(refs []corev1.ObjectReference, uid types.UID) []corev1.ObjectReference {
	return slices.DeleteFunc(slices.Clone(refs), func(r corev1.ObjectReference) bool { return r.UID == uid })
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
