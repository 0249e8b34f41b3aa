package rollout

import (
	"context"
	"fmt"
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
)

const (
	// JobOf is an annotation on a Job of a step: the name of the Deployment.
	JobOf = "knarr.io/rollout-of"
	// revisionVariable is in the environment of a Job's containers: the label pod-template-hash of the new pods.
	revisionVariable = "KNARR_REVISION"
	// longestPrefix is how much of a Deployment's name stands in those of its Jobs, which are labels of their pods as well.
	longestPrefix = 35
)

// jobName names the Job of a step: the same one for the same step of the same attempt, however often it is made.
func jobName(d *appsv1.Deployment, rs *appsv1.ReplicaSet, st State) string {
	prefix := strings.TrimRight(d.Name[:min(len(d.Name), longestPrefix)], "-.")
	name := fmt.Sprintf("%s-%s-step-%d", prefix, rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey], st.Step+1)
	if st.Attempt > 0 {
		name += fmt.Sprintf("-%d", st.Attempt+1)
	}
	return name
}

// LookAtJob reads how the Job of the step of st is doing; there is none for other steps.
func LookAtJob(ctx context.Context, c client.Client, d *appsv1.Deployment, rs *appsv1.ReplicaSet, s *spec.Strategy, st State) (Job, error) {
	out := Job{Step: st.Step, Attempt: st.Attempt}
	if st.Step >= len(s.Steps) || s.Steps[st.Step].Job+s.Steps[st.Step].CronJob == "" {
		return out, nil
	}
	j, err := client.Get[*batchv1.Job](ctx, c, api.Key{Namespace: d.Namespace, Name: jobName(d, rs, st)})
	switch {
	case apierrors.IsNotFound(err):
		_, out.Err = template(ctx, c, d.Namespace, s.Steps[st.Step])
		if out.Err != nil && !apierrors.IsNotFound(out.Err) {
			return out, out.Err
		}
		return out, nil
	case err != nil:
		return out, err
	case !owned(j, rs):
		out.Err = fmt.Errorf("there is another Job %s already", j.Name)
		return out, nil
	}
	out.Exists = true
	for _, cond := range j.Status.Conditions {
		if cond.Status != corev1.ConditionTrue {
			continue
		}
		switch cond.Type {
		case batchv1.JobComplete:
			out.Complete = true
		case batchv1.JobFailed:
			out.Failed, out.Message = true, fmt.Sprintf("%s (%s)", cond.Message, j.Name)
		}
	}
	return out, nil
}

func owned(j *batchv1.Job, rs *appsv1.ReplicaSet) bool {
	for _, ref := range j.OwnerReferences {
		if ref.UID == rs.UID {
			return true
		}
	}
	return false
}

// template reads what the Job of a step is a copy of.
func template(ctx context.Context, c client.Client, namespace string, s spec.Step) (*batchv1.JobTemplateSpec, error) {
	if s.CronJob != "" {
		cj, err := client.Get[*batchv1.CronJob](ctx, c, api.Key{Namespace: namespace, Name: s.CronJob})
		if err != nil {
			return nil, err
		}
		return cj.Spec.JobTemplate.DeepCopy(), nil
	}
	j, err := client.Get[*batchv1.Job](ctx, c, api.Key{Namespace: namespace, Name: s.Job})
	if err != nil {
		return nil, err
	}
	out := &batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: j.Labels, Annotations: j.Annotations}, Spec: j.Spec}
	out = out.DeepCopy()
	if out.Spec.ManualSelector == nil || !*out.Spec.ManualSelector {
		// What the front door gave this Job is its own.
		out.Spec.Selector = nil
		for _, l := range []map[string]string{out.Labels, out.Spec.Template.Labels} {
			for _, key := range []string{"controller-uid", "job-name", batchv1.ControllerUidLabel, batchv1.JobNameLabel} {
				delete(l, key)
			}
		}
	}
	return out, nil
}

// RunJob makes the Job of the step of st, unless it is there.
func RunJob(ctx context.Context, c client.Client, d *appsv1.Deployment, rs *appsv1.ReplicaSet, s *spec.Strategy, st State) error {
	t, err := template(ctx, c, d.Namespace, s.Steps[st.Step])
	if apierrors.IsNotFound(err) {
		return nil // it is for the plan to say so
	}
	if err != nil {
		return err
	}
	if _, err := c.Create(ctx, newJob(d, rs, t, st)); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the Job of step %d of the roll-out of Deployment %s: %w", st.Step+1, api.KeyOf(d), err)
	}
	return nil
}

// newJob is the Job of a step, made from t.
func newJob(d *appsv1.Deployment, rs *appsv1.ReplicaSet, t *batchv1.JobTemplateSpec, st State) *batchv1.Job {
	annotations := maps.Clone(t.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	annotations[JobOf] = d.Name
	ref := *metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
	ref.Controller = nil // the ReplicaSet's pods are its own, a Job's are not
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: jobName(d, rs, st), Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{ref}},
		Spec: t.Spec,
	}
	j.Spec.Suspend = nil
	variable := corev1.EnvVar{Name: revisionVariable, Value: rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]}
	for _, containers := range [][]corev1.Container{j.Spec.Template.Spec.InitContainers, j.Spec.Template.Spec.Containers} {
		for i := range containers {
			containers[i].Env = append(containers[i].Env, variable)
		}
	}
	return j
}

// JobKeys maps a Job of a step to its Deployment.
func JobKeys(e client.Event) []api.Key {
	name := e.Object.GetAnnotations()[JobOf]
	if name == "" {
		return nil
	}
	return []api.Key{{Namespace: e.Object.GetNamespace(), Name: name}}
}
