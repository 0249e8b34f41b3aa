package workloads

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	upstream "k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/job"
)

var firstSeed = flag.Uint64("seed", 0, "the first history of Jobs, CronJobs and autoscalers, to look at one again")

// lives lives through a history of each seed, in a bubble of virtual time of its own: through as many as are asked for, or a share of them where each takes
// long.
func lives(t *testing.T, share int, live func(t *testing.T, seed uint64)) (n int) {
	n = max(1, *histories/share)
	for seed := *firstSeed; seed < *firstSeed+uint64(n); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { live(t, seed) }) })
	}
	return n
}

func kubernetesJobs(ctx context.Context, kube clientset.Interface, f informers.SharedInformerFactory) (func(context.Context, int), error) {
	c, err := upstream.NewController(ctx, kube, f.Core().V1().Pods(), f.Batch().V1().Jobs(), nil, nil)
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}

// drawJob is a Job with some of what Jobs may ask for.
func drawJob(r *rand.Rand) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "work"}, Spec: batchv1.JobSpec{
		Parallelism: ptr.To(int32(r.IntN(5))), BackoffLimit: ptr.To(pick[int32](r, 0, 1, 2, 6)),
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
	s := &j.Spec
	if r.IntN(4) > 0 {
		s.Completions = ptr.To(int32(1 + r.IntN(6)))
	}
	if s.Completions != nil && r.IntN(2) == 0 {
		s.CompletionMode = ptr.To(batchv1.IndexedCompletion)
		drawIndexed(r, s)
	}
	switch r.IntN(4) {
	case 0:
		drawFailurePolicy(r, s)
	case 1:
		s.PodReplacementPolicy = ptr.To(pick(r, batchv1.Failed, batchv1.TerminatingOrFailed))
	case 2:
		if s.BackoffLimitPerIndex == nil {
			s.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		}
	}
	if r.IntN(4) == 0 {
		s.ActiveDeadlineSeconds = ptr.To(int64(100 + r.IntN(2000)))
	}
	s.Suspend = ptr.To(r.IntN(5) == 0)
	return j
}

func drawIndexed(r *rand.Rand, s *batchv1.JobSpec) {
	switch r.IntN(3) {
	case 0:
		s.BackoffLimit = nil
		s.BackoffLimitPerIndex = ptr.To(int32(r.IntN(3)))
		if r.IntN(2) == 0 {
			s.MaxFailedIndexes = ptr.To(int32(r.IntN(int(*s.Completions) + 1)))
		}
	case 1:
		rule := batchv1.SuccessPolicyRule{SucceededCount: ptr.To(int32(1))}
		if r.IntN(2) == 0 {
			rule = batchv1.SuccessPolicyRule{SucceededIndexes: ptr.To("0")}
		}
		s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{rule}}
	}
}

// Exit codes that policies name.
const (
	codeFailJob   = 42
	codeFailIndex = 43
	codeIgnore    = 44
	codeCount     = 45
)

func drawFailurePolicy(r *rand.Rand, s *batchv1.JobSpec) {
	rule := func(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
		return batchv1.PodFailurePolicyRule{Action: action,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}}
	}
	rules := []batchv1.PodFailurePolicyRule{
		rule(batchv1.PodFailurePolicyActionFailJob, codeFailJob), rule(batchv1.PodFailurePolicyActionIgnore, codeIgnore), rule(batchv1.PodFailurePolicyActionCount, codeCount),
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
	}
	if s.BackoffLimitPerIndex != nil {
		rules = append(rules, rule(batchv1.PodFailurePolicyActionFailIndex, codeFailIndex))
	}
	r.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules[:1+r.IntN(len(rules))]}
	if s.PodReplacementPolicy == nil && r.IntN(2) == 0 {
		s.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
}

func (s *served) job() *batchv1.Job {
	j, err := client.Get[*batchv1.Job](s.t.Context(), s.Local, api.Key{Namespace: metav1.NamespaceDefault, Name: "work"})
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

// pods lists the pods, those made first first.
func (s *served) pods() []*corev1.Pod {
	pods, err := client.List[*corev1.Pod](s.t.Context(), s.Local, client.ListOptions{Namespace: metav1.NamespaceDefault})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return pods
}

// look says what one pod of the Job is like; pods alike stand for each other.
func look(p *corev1.Pod) string {
	s := fmt.Sprintf("%s of index %q", p.Status.Phase, p.Labels[batchv1.JobCompletionIndexAnnotation])
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			s += fmt.Sprintf(" %s=%s", c.Type, c.Status)
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.RestartCount > 0 {
			s += fmt.Sprintf(" restarts=%d", c.RestartCount)
		}
		if c.State.Terminated != nil {
			s += fmt.Sprintf(" code=%d", c.State.Terminated.ExitCode)
		}
	}
	for _, name := range []string{batchv1.JobIndexFailureCountAnnotation, batchv1.JobIndexIgnoredFailureCountAnnotation} {
		if v, ok := p.Annotations[name]; ok {
			s += fmt.Sprintf(" %s=%s", strings.TrimPrefix(name, "batch.kubernetes.io/"), v)
		}
	}
	if slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) {
		s += " tracked"
	}
	if p.DeletionTimestamp != nil {
		s += " ends"
	}
	return s
}

var podName = regexp.MustCompile(`default/work-[-a-z0-9]+`)

// showJob writes what there is: the pods, and the status with neither names nor times in it.
func (s *served) showJob() string {
	var b strings.Builder
	var pods []string
	for _, p := range s.pods() {
		pods = append(pods, look(p))
	}
	slices.Sort(pods)
	for _, p := range pods {
		b.WriteString("  " + p + "\n")
	}
	st := s.job().Status
	fmt.Fprintf(&b, "  %d active, %d ready, %d terminating, %d succeeded, %d failed, done %q, lost %q, started %v, completed %v", st.Active, ptr.Deref(st.Ready, -1),
		ptr.Deref(st.Terminating, -1), st.Succeeded, st.Failed, st.CompletedIndexes, ptr.Deref(st.FailedIndexes, "-"), st.StartTime != nil, st.CompletionTime != nil)
	if u := st.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		fmt.Fprintf(&b, ", uncounted %d and %d", len(u.Succeeded), len(u.Failed))
	}
	for _, c := range st.Conditions {
		fmt.Fprintf(&b, ", %s=%s %s %q", c.Type, c.Status, c.Reason, podName.ReplaceAllString(c.Message, "default/POD"))
	}
	return b.String()
}

// podEvent changes the first pod that looks so.
func podEvent(what, looks string, do func(s *served, p *corev1.Pod)) happening {
	return happening{what + ": " + looks, func(s *served) {
		i := slices.IndexFunc(s.pods(), func(p *corev1.Pod) bool { return look(p) == looks })
		if i < 0 {
			s.t.Fatalf("no pod is %q", looks)
		}
		do(s, s.pods()[i])
	}}
}

// happening is something that happens to both clusters.
type happening struct {
	name string
	do   func(s *served)
}

func (s *served) podStatus(p *corev1.Pod, change func(*corev1.Pod)) {
	if _, err := client.Mutate(s.t.Context(), s.Local, api.KeyOf(p), "status", func(p *corev1.Pod) bool { change(p); return true }); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) removePod(p *corev1.Pod, grace *int64) {
	err := client.Delete[*corev1.Pod](s.t.Context(), s.Local, api.KeyOf(p), metav1.DeleteOptions{GracePeriodSeconds: grace})
	if err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
}

// ended is the status of a pod whose container ended with a code.
func ended(p *corev1.Pod, code int32) {
	ready(p, corev1.ConditionFalse)
	p.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		p.Status.Phase = corev1.PodFailed
	}
	at := metav1.NewTime(time.Now())
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: at}}}}
}

// drawPodEvent is something that becomes of a pod: what its node does, somebody who deletes it, a disruption.
func drawPodEvent(r *rand.Rand, p *corev1.Pod) happening {
	looks := look(p)
	code := pick[int32](r, 0, 0, 0, 1, 1, codeFailJob, codeFailIndex, codeIgnore, codeCount)
	finished := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	switch {
	case finished && p.DeletionTimestamp == nil && r.IntN(4) == 0:
		return podEvent("somebody deletes", looks, func(s *served, p *corev1.Pod) { s.removePod(p, nil) })
	case finished:
		return podEvent("the node has done with", looks, func(s *served, p *corev1.Pod) {
			if p.DeletionTimestamp != nil {
				s.removePod(p, new(int64))
			}
		})
	case p.Status.Phase == corev1.PodPending && p.DeletionTimestamp == nil && r.IntN(6) > 0:
		return podEvent("runs", looks, func(s *served, p *corev1.Pod) {
			s.BindMany(s.t.Context(), []client.Binding{{Pod: api.KeyOf(p), Node: "n"}})
			s.podStatus(p, func(p *corev1.Pod) {
				ready(p, corev1.ConditionTrue)
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			})
		})
	case p.Spec.RestartPolicy == corev1.RestartPolicyOnFailure && r.IntN(2) == 0:
		return podEvent("restarts", looks, func(s *served, p *corev1.Pod) {
			s.podStatus(p, func(p *corev1.Pod) {
				n := int32(1)
				if len(p.Status.ContainerStatuses) > 0 {
					n += p.Status.ContainerStatuses[0].RestartCount
				}
				ready(p, corev1.ConditionTrue)
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: n, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			})
		})
	case p.DeletionTimestamp == nil && r.IntN(8) == 0:
		return podEvent("somebody deletes", looks, func(s *served, p *corev1.Pod) { s.removePod(p, nil) })
	case p.DeletionTimestamp == nil && r.IntN(8) == 0:
		return podEvent("is evicted", looks, func(s *served, p *corev1.Pod) {
			s.podStatus(p, func(p *corev1.Pod) {
				ended(p, 137)
				p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue})
			})
		})
	default:
		return podEvent(fmt.Sprintf("ends with %d", code), looks, func(s *served, p *corev1.Pod) { s.podStatus(p, func(p *corev1.Pod) { ended(p, code) }) })
	}
}

func drawJobEvent(r *rand.Rand, s *served) happening {
	if pods := s.pods(); len(pods) > 0 && r.IntN(8) > 0 {
		return drawPodEvent(r, pods[r.IntN(len(pods))])
	}
	change := func(what string, f func(*batchv1.JobSpec)) happening {
		return happening{what, func(s *served) {
			if _, err := client.Mutate(s.t.Context(), s.Local, api.KeyOf(s.job()), "", func(j *batchv1.Job) bool { f(&j.Spec); return true }); err != nil && !apierrors.IsInvalid(err) {
				s.t.Fatal(err)
			}
		}}
	}
	switch n := int32(r.IntN(6)); r.IntN(4) {
	case 0:
		return change("suspended or resumed", func(j *batchv1.JobSpec) { j.Suspend = ptr.To(!*j.Suspend) })
	case 1:
		return change(fmt.Sprint("completions and parallelism ", n), func(j *batchv1.JobSpec) {
			if j.CompletionMode != nil && *j.CompletionMode == batchv1.IndexedCompletion {
				j.Completions, j.Parallelism = &n, &n
			}
		})
	default:
		return change(fmt.Sprint("parallelism ", n), func(j *batchv1.JobSpec) { j.Parallelism = &n })
	}
}

func jobCondition(j *batchv1.Job, types ...batchv1.JobConditionType) *batchv1.JobCondition {
	for i, c := range j.Status.Conditions {
		if slices.Contains(types, c.Type) && c.Status == corev1.ConditionTrue {
			return &j.Status.Conditions[i]
		}
	}
	return nil
}

// stuck reports whether Kubernetes cannot end a suspended Job, and Knarr does: the API refuses an end without a start, and Kubernetes gives none to a
// Job that is suspended.
func stuck(theirs, ours *served) bool {
	their, our := theirs.job(), ours.job()
	return their.Status.StartTime == nil && jobCondition(their, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet) != nil &&
		jobCondition(our, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet) != nil && our.Status.StartTime != nil
}

// late reports whether Kubernetes fails a Job by its failure policy for a pod that it had stopped and done with: when the Job was suspended, or had too
// many. Knarr does not look at such pods again, since their exit codes say how they were stopped.
func late(theirs, ours *served) bool {
	c := jobCondition(theirs.job(), batchv1.JobFailureTarget)
	return c != nil && c.Reason == batchv1.JobReasonPodFailurePolicy && jobCondition(ours.job(), batchv1.JobFailureTarget) == nil &&
		slices.ContainsFunc(theirs.pods(), func(p *corev1.Pod) bool {
			return p.DeletionTimestamp != nil && p.Status.Phase == corev1.PodFailed && !slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer)
		})
}

// TestJobsLiveAsInKubernetes: after each event, both controllers have left the same pods, counted and not, and the same status.
func TestJobsLiveAsInKubernetes(t *testing.T) {
	events, finished, departures := 0, 0, 0
	n := lives(t, 2, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		theirs, ours := newServed(t), newServed(t)
		theirs.theirs(kubernetesJobs)
		ours.ours(job.New(ours.Local, nil))
		made := drawJob(r)
		for _, s := range []*served{theirs, ours} {
			clienttest.Create(t, s.Local, made.DeepCopy())
		}
		spec, _ := json.Marshal(made.Spec)
		log := []string{string(spec)}
		for range 50 {
			want, got := alike(theirs, ours, (*served).showJob)
			if want != got && (stuck(theirs, ours) || late(theirs, ours)) {
				departures++
				return
			}
			if want != got {
				t.Errorf("Kubernetes has\n%s\nwhere Knarr has\n%s\nafter\n%s", want, got, strings.Join(log, "\n"))
				return
			}
			log = append(log, theirs.showJob())
			if j := theirs.job(); len(j.Status.Conditions) > 0 && j.Status.Active+j.Status.Failed+j.Status.Succeeded > 0 && slices.ContainsFunc(j.Status.Conditions,
				func(c batchv1.JobCondition) bool { return c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed }) {
				finished++
				return
			}
			e := drawJobEvent(r, theirs)
			log = append(log, e.name)
			e.do(theirs)
			e.do(ours)
			events++
			time.Sleep(pick(r, 3*time.Second, 14*time.Second, 33*time.Second, 11*time.Minute)) // virtual
		}
	})
	t.Logf("%d events in %d histories, %d of which finished and %d ended with a departure", events, n, finished, departures)
	if n > 20 && (events < n*8 || finished < n/4 || departures > n/10) {
		t.Errorf("%d events, %d ends and %d departures in %d histories: what is drawn tests little", events, finished, departures, n)
	}
}

// alike shows both sides once they have nothing left to do. Kubernetes' controllers wait for a second for more to happen.
func alike(theirs, ours *served, show func(*served) string) (want, got string) {
	for range 3 {
		synctest.Wait()
		if want, got = show(theirs), show(ours); want == got {
			break
		}
		time.Sleep(time.Second) // virtual
	}
	return want, got
}
