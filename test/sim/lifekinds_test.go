package sim

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// subject is an object that comes, changes and goes in a life.
type subject struct {
	name                         string
	create, edit, remove, settle func(l *life) error
}

// of makes a subject of objects of type T. settled changes one so that what it declares can come true; it may be nil.
func of[T api.Object](name string, build func(l *life, meta metav1.ObjectMeta) T, edit func(l *life, o T), settled func(o T)) subject {
	key := api.Key{Namespace: "default", Name: name}
	change := func(l *life, how func(T)) error {
		_, err := client.Mutate(l.ctx, l.Client, key, "", func(o T) bool { how(o); return true })
		return err
	}
	return subject{
		name: name,
		create: func(l *life) error {
			_, err := l.Create(l.ctx, build(l, metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}))
			return err
		},
		edit: func(l *life) error { return change(l, func(o T) { edit(l, o) }) },
		remove: func(l *life) error {
			policies := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan}
			if res := client.ResourceOf[T](); res == api.Jobs || res == api.CronJobs {
				policies = policies[:2] // nobody would take their pods and Jobs over
			}
			return client.Delete[T](l.ctx, l.Client, key, metav1.DeleteOptions{PropagationPolicy: &policies[l.rng.IntN(len(policies))]})
		},
		settle: func(l *life) error {
			if settled == nil {
				return nil
			}
			return change(l, settled)
		},
	}
}

var subjects = []subject{
	of("web-a", (*life).deployment, (*life).editDeployment, func(d *appsv1.Deployment) { d.Spec.Paused = false }),
	of("web-b", (*life).deployment, (*life).editDeployment, func(d *appsv1.Deployment) { d.Spec.Paused = false }),
	of("state-a", (*life).statefulSet, (*life).editStatefulSet, nil),
	of("state-b", (*life).statefulSet, (*life).editStatefulSet, nil),
	of("daemon-a", (*life).daemonSet, func(l *life, d *appsv1.DaemonSet) { d.Spec.Template.Spec.Containers[0].Image = l.image() }, nil),
	of("set-a", func(l *life, m metav1.ObjectMeta) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Replicas: l.upTo(4), Selector: chosen(m.Name), Template: l.template(m.Name)}}
	}, func(l *life, r *appsv1.ReplicaSet) { r.Spec.Replicas = l.upTo(4) }, nil),
	of("control-a", func(l *life, m metav1.ObjectMeta) *corev1.ReplicationController {
		return &corev1.ReplicationController{ObjectMeta: m, Spec: corev1.ReplicationControllerSpec{Replicas: l.upTo(4), Selector: chosen(m.Name).MatchLabels, Template: ptr.To(l.template(m.Name))}}
	}, func(l *life, r *corev1.ReplicationController) { r.Spec.Replicas = l.upTo(4) }, nil),
	of("job-a", (*life).job, (*life).editJob, settledJob), of("job-b", (*life).job, (*life).editJob, settledJob), of("job-c", (*life).job, (*life).editJob, settledJob),
	of("cron-a", (*life).cronJob, (*life).editCronJob, func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(true) }),
	of("cron-b", (*life).cronJob, (*life).editCronJob, func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(true) }),
	of("web-a", (*life).budget, (*life).editBudget, nil), of("state-a", (*life).budget, (*life).editBudget, nil),
	of("quota", func(l *life, m metav1.ObjectMeta) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{ObjectMeta: m, Spec: corev1.ResourceQuotaSpec{Hard: pods(int64(5 + l.rng.IntN(60)))}}
	}, func(l *life, q *corev1.ResourceQuota) { q.Spec.Hard = pods(int64(5 + l.rng.IntN(60))) }, func(q *corev1.ResourceQuota) { q.Spec.Hard = pods(1000) }),
}

func pods(n int64) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourcePods: *resource.NewQuantity(n, resource.DecimalSI), "count/jobs.batch": resource.MustParse("1000"), "count/replicasets.apps": resource.MustParse("1000")}
}

func chosen(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func (l *life) chance() bool { return l.rng.IntN(2) == 0 }

// upTo returns a number from 0 to most.
func (l *life) upTo(most int) *int32 { return ptr.To(int32(l.rng.IntN(most + 1))) }

// maybe returns a number from least to most half the time, and else nil.
func (l *life) maybe(least, most int) *int32 {
	if l.chance() {
		return nil
	}
	return ptr.To(int32(least + l.rng.IntN(most-least+1)))
}

func (l *life) image() string { return fmt.Sprintf("docker.io/library/app:%d", 1+l.rng.IntN(3)) }

func (l *life) template(app string) corev1.PodTemplateSpec {
	t := setTemplate(app)
	t.Spec.Containers[0].Image = l.image()
	return t
}

func (l *life) deployment(m metav1.ObjectMeta) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Replicas: l.upTo(6), Selector: chosen(m.Name), Template: l.template(m.Name), RevisionHistoryLimit: l.upTo(2)}}
	if l.rng.IntN(3) == 0 {
		d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
	}
	return d
}

func (l *life) editDeployment(d *appsv1.Deployment) {
	switch l.rng.IntN(5) {
	case 0, 1:
		d.Spec.Replicas = l.upTo(6)
	case 2, 3:
		d.Spec.Template.Spec.Containers[0].Image = l.image()
	case 4:
		d.Spec.Paused = !d.Spec.Paused
	}
}

func (l *life) statefulSet(m metav1.ObjectMeta) *appsv1.StatefulSet {
	set := &appsv1.StatefulSet{ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Replicas: l.upTo(4), Selector: chosen(m.Name), Template: l.template(m.Name),
		UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: atMost(1 + l.rng.IntN(2))}}}}
	if l.chance() {
		set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
	}
	if l.chance() {
		set.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: int32(l.rng.IntN(3))}
	}
	return set
}

func (l *life) editStatefulSet(s *appsv1.StatefulSet) {
	if l.chance() {
		s.Spec.Replicas = l.upTo(4)
	} else {
		s.Spec.Template.Spec.Containers[0].Image = l.image()
	}
}

func (l *life) daemonSet(m metav1.ObjectMeta) *appsv1.DaemonSet {
	surge := l.rng.IntN(2)
	return &appsv1.DaemonSet{ObjectMeta: m, Spec: appsv1.DaemonSetSpec{Selector: chosen(m.Name), Template: l.template(m.Name),
		UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: atMost(surge), MaxUnavailable: atMost(1 - surge)}}}}
}

// jobSpec is one whose Job ends sooner or later.
func (l *life) jobSpec() batchv1.JobSpec {
	t := setTemplate("")
	t.Labels = nil
	t.Spec.RestartPolicy = corev1.RestartPolicyNever
	s := batchv1.JobSpec{Completions: ptr.To(int32(1 + l.rng.IntN(6))), Parallelism: ptr.To(int32(1 + l.rng.IntN(3))), BackoffLimit: l.upTo(4), Template: t, TTLSecondsAfterFinished: l.maybe(0, 60)}
	if deadline := l.maybe(5, 120); deadline != nil && l.chance() {
		s.ActiveDeadlineSeconds = ptr.To(int64(*deadline))
	}
	if l.chance() {
		s.PodReplacementPolicy = ptr.To(batchv1.Failed)
	}
	if l.rng.IntN(3) == 0 {
		s.PodReplacementPolicy = ptr.To(batchv1.Failed) // as a failure policy demands
		s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}},
			{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{3}}},
		}}
	} else if l.chance() {
		s.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
	}
	if l.chance() {
		s.CompletionMode = ptr.To(batchv1.IndexedCompletion)
		if s.Template.Spec.RestartPolicy == corev1.RestartPolicyNever {
			s.BackoffLimitPerIndex = l.maybe(0, 2)
		}
		if s.BackoffLimitPerIndex != nil {
			s.MaxFailedIndexes = l.maybe(0, 2)
		}
		if l.rng.IntN(4) == 0 {
			s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: ptr.To(int32(1))}}}
		}
	}
	return s
}

func (l *life) job(m metav1.ObjectMeta) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: m, Spec: l.jobSpec()}
	j.Spec.Suspend = ptr.To(l.rng.IntN(4) == 0)
	return j
}

func (l *life) editJob(j *batchv1.Job) {
	if l.chance() {
		j.Spec.Suspend = ptr.To(!ptr.Deref(j.Spec.Suspend, false))
	} else {
		j.Spec.Parallelism = l.upTo(4)
	}
}

func settledJob(j *batchv1.Job) { j.Spec.Suspend, j.Spec.Parallelism = ptr.To(false), ptr.To(int32(2)) }

func (l *life) cronJob(m metav1.ObjectMeta) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: m, Spec: batchv1.CronJobSpec{Schedule: "*/1 * * * *",
		ConcurrencyPolicy:          []batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}[l.rng.IntN(3)],
		SuccessfulJobsHistoryLimit: l.upTo(3), FailedJobsHistoryLimit: l.upTo(2), JobTemplate: batchv1.JobTemplateSpec{Spec: l.jobSpec()}}}
	if deadline := l.maybe(10, 200); deadline != nil {
		c.Spec.StartingDeadlineSeconds = ptr.To(int64(*deadline))
	}
	if l.chance() {
		c.Spec.TimeZone = ptr.To("Europe/Berlin")
	}
	return c
}

func (l *life) editCronJob(c *batchv1.CronJob) {
	switch l.rng.IntN(3) {
	case 0:
		c.Spec.Suspend = ptr.To(!ptr.Deref(c.Spec.Suspend, false))
	case 1:
		c.Spec.Schedule = fmt.Sprintf("*/%d * * * *", 1+l.rng.IntN(3))
	case 2:
		c.Spec.JobTemplate.Spec = l.jobSpec()
	}
}

func (l *life) budget(m metav1.ObjectMeta) *policyv1.PodDisruptionBudget {
	p := &policyv1.PodDisruptionBudget{ObjectMeta: m, Spec: policyv1.PodDisruptionBudgetSpec{Selector: chosen(m.Name)}}
	l.editBudget(p)
	return p
}

func (l *life) editBudget(p *policyv1.PodDisruptionBudget) {
	bound := []*intstr.IntOrString{atMost(l.rng.IntN(4)), ptr.To(intstr.FromString(fmt.Sprintf("%d%%", l.rng.IntN(101))))}[l.rng.IntN(2)]
	p.Spec.MinAvailable, p.Spec.MaxUnavailable = bound, nil
	if l.chance() {
		p.Spec.MinAvailable, p.Spec.MaxUnavailable = nil, bound
	}
}
