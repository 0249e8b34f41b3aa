package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

func newJob(name string, completions, parallelism int32, change ...func(*batchv1.Job)) *batchv1.Job {
	template := ct.Template(name, "img")
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       batchv1.JobSpec{Completions: &completions, Parallelism: &parallelism, Template: template},
	}
	for _, f := range change {
		f(j)
	}
	return j
}

func byIndex(j *batchv1.Job) { j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion) }

// status says in one line how a job fares: its counters, and its conditions that are true with their reasons.
func status(j *batchv1.Job) string {
	s := j.Status
	var conditions []string
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue {
			conditions = append(conditions, string(c.Type)+"="+c.Reason)
		}
	}
	out := fmt.Sprintf("active %d ready %d terminating %d succeeded %d failed %d", s.Active, ptr.Deref(s.Ready, -1), ptr.Deref(s.Terminating, -1), s.Succeeded, s.Failed)
	if s.CompletedIndexes != "" {
		out += " done " + s.CompletedIndexes
	}
	if s.FailedIndexes != nil {
		out += " lost " + *s.FailedIndexes
	}
	if u := s.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		out += " uncounted"
	}
	return strings.TrimSpace(out + " " + strings.Join(conditions, " "))
}

func expect(c *ct.Cluster, name, want string) {
	c.T.Helper()
	if got := status(ct.Get[*batchv1.Job](c, ns, name)); got != want {
		c.T.Errorf("job %s: %s\nwant: %s", name, got, want)
	}
}

func start(c *ct.Cluster, stop time.Duration, f fate) {
	c.Start(New(c.Client, nil), NewOrphans(c.Client), newNode(c.Client, stop, f))
}

func TestJobRunsToCompletion(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(0, 5*time.Second))
		ct.Make(c, newJob("sum", 5, 2))
		c.Pass(time.Second)
		expect(c, "sum", "active 2 ready 2 terminating 0 succeeded 0 failed 0")
		c.Pass(5 * time.Second)
		expect(c, "sum", "active 2 ready 2 terminating 0 succeeded 2 failed 0")
		c.Pass(time.Minute)
		expect(c, "sum", "active 0 ready 0 terminating 0 succeeded 5 failed 0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached")
		j := ct.Get[*batchv1.Job](c, ns, "sum")
		if j.Status.StartTime == nil || j.Status.CompletionTime == nil || j.Status.CompletionTime.Sub(j.Status.StartTime.Time) != 15*time.Second {
			t.Errorf("from %v to %v, want 15 s", j.Status.StartTime, j.Status.CompletionTime)
		}
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			if tracked(p) || p.Labels[batchv1.JobNameLabel] != "sum" || p.Labels[batchv1.ControllerUidLabel] != string(j.UID) {
				t.Errorf("pod %s has finalizers %v and labels %v", p.Name, p.Finalizers, p.Labels)
			}
		}
		if len(c.Events("SuccessfulCreate")) != 5 || !slices.Equal(c.Events("Completed"), []string{"Job completed"}) {
			t.Errorf("events %v, %v", c.Events("SuccessfulCreate"), c.Events("Completed"))
		}
	})
}

func TestJobWithoutCompletionsEndsWithTheFirstSuccess(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		first := ""
		start(c, 0, func(p *corev1.Pod) (int32, time.Duration) {
			if first == "" {
				first = p.Name
			}
			if p.Name == first {
				return 0, 5 * time.Second
			}
			return 0, 20 * time.Second
		})
		ct.Make(c, newJob("queue", 0, 3, func(j *batchv1.Job) { j.Spec.Completions = nil }))
		c.Pass(10 * time.Second)
		expect(c, "queue", "active 2 ready 2 terminating 0 succeeded 1 failed 0")
		c.Pass(time.Minute)
		expect(c, "queue", "active 0 ready 0 terminating 0 succeeded 3 failed 0 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached")
	})
}

func TestFailedPodsAreReplacedWithBackOff(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, always(1, 0))
		ct.Make(c, newJob("bad", 1, 1, func(j *batchv1.Job) { j.Spec.BackoffLimit = ptr.To(int32(3)) }))
		var made []time.Duration
		began := time.Now()
		for range 200 {
			c.Pass(time.Second)
			if n := len(ct.All[*corev1.Pod](c, ns)); n > len(made) {
				made = append(made, time.Since(began))
			}
		}
		expect(c, "bad", "active 0 ready 0 terminating 0 succeeded 0 failed 4 FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded")
		if want := []time.Duration{1e9, 11e9, 31e9, 71e9}; len(made) != 4 || slices.ContainsFunc(made, func(d time.Duration) bool {
			return !slices.ContainsFunc(want, func(w time.Duration) bool { return d-w <= time.Second && w-d <= time.Second })
		}) {
			t.Errorf("pods were made after %v, want about 0, 10, 30 and 70 s", made)
		}
		if e := c.Events("BackoffLimitExceeded"); !slices.Equal(e, []string{"Job has reached the specified backoff limit"}) {
			t.Errorf("events %v", e)
		}
	})
}

func TestBackOffSurvivesARestart(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := c.Start(New(c.Client, nil))
		c.Start(newNode(c.Client, 0, always(1, 0)))
		ct.Make(c, newJob("bad", 1, 1))
		c.Pass(12 * time.Second) // two pods have failed; the third is due 20 s after the second
		stop()
		c.Start(New(c.Client, nil))
		c.Pass(10 * time.Second)
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 2 {
			t.Errorf("%d pods shortly after a restart, want 2", n)
		}
		c.Pass(10 * time.Second)
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 3 {
			t.Errorf("%d pods, want the third when it is due", n)
		}
	})
}

func TestIndexedJob(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c, 0, func(p *corev1.Pod) (int32, time.Duration) {
			i, _ := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
			return 0, time.Duration(i+1) * time.Second
		})
		ct.Make(c, newJob("grid", 7, 7, byIndex))
		c.Pass(500 * time.Millisecond)
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			i := p.Annotations[batchv1.JobCompletionIndexAnnotation]
			env := p.Spec.Containers[0].Env
			if p.Labels[batchv1.JobCompletionIndexAnnotation] != i || p.Spec.Hostname != "grid-"+i || !strings.HasPrefix(p.Name, "grid-"+i+"-") ||
				len(env) != 1 || env[0].Name != "JOB_COMPLETION_INDEX" || env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
				t.Errorf("pod %s of index %s: host %s, environment %+v", p.Name, i, p.Spec.Hostname, env)
			}
		}
		c.Pass(3 * time.Second)
		expect(c, "grid", "active 4 ready 4 terminating 0 succeeded 3 failed 0 done 0-2")
		c.Pass(5 * time.Second)
		expect(c, "grid", "active 0 ready 0 terminating 0 succeeded 7 failed 0 done 0-6 SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached")
	})
}
