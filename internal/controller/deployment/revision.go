package deployment

import (
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

// Annotations that kubectl rollout and this controller keep on ReplicaSets (the first also on Deployments).
const (
	revisionAnnotation        = "deployment.kubernetes.io/revision"
	revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	desiredAnnotation         = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation             = "deployment.kubernetes.io/max-replicas"
)

// maxHistory limits the revision history annotation, in characters.
const maxHistory = 2000

// own reports whether an annotation belongs to one object and is not copied between a Deployment and its ReplicaSets.
func own(key string) bool {
	switch key {
	case corev1.LastAppliedConfigAnnotation, revisionAnnotation, revisionHistoryAnnotation, desiredAnnotation, maxAnnotation,
		appsv1.DeprecatedRollbackTo, spec.How, spec.OnConfigChange, spec.Action, spec.State, spec.Traffic:
		return true
	}
	return false
}

// sameTemplate compares pod templates without the hash label that ReplicaSets add.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := *a, *b
	x.Labels, y.Labels = clone(a.Labels), clone(b.Labels)
	delete(x.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(y.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return apiequality.Semantic.DeepEqual(&x, &y)
}

// presentOf returns which of sets, oldest first, has d's template and, where pods roll with what they use, was made for what that holds
// now; nil if there is none. The latest one of the template that was not made for anything is taken to be: opting in rolls nothing, nor
// does data that was missing and has come. As long as data is missing, the latest one stays.
func presentOf(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, config *podconfig.Now) *appsv1.ReplicaSet {
	var oldest, latest, right *appsv1.ReplicaSet
	labelled := false
	for _, rs := range sets {
		if !sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			continue
		}
		if oldest == nil {
			oldest = rs
		}
		if latest == nil || newerRevision(rs, latest) {
			latest = rs
		}
		hash := rs.Labels[spec.ConfigHash]
		labelled = labelled || hash != ""
		if config != nil && hash != "" && hash == config.Hash && right == nil {
			right = rs
		}
	}
	switch {
	case !labelled:
		return oldest // should several have the template (left behind by an older version), the oldest is it
	case config == nil || config.Hash == "":
		return latest
	case right == nil && latest.Labels[spec.ConfigHash] == "":
		return latest
	}
	return right
}

func newerRevision(a, b *appsv1.ReplicaSet) bool {
	ra, errA := revisionOf(a)
	rb, errB := revisionOf(b)
	return errA == nil && (errB != nil || ra > rb)
}

// newReplicaSet builds the ReplicaSet for d's template, with no pods yet. config is what its pods' ConfigMaps and Secrets hold, where they
// roll with that.
func newReplicaSet(d *appsv1.Deployment, config string) *appsv1.ReplicaSet {
	hash := workload.TemplateHash(podconfig.Named(&d.Spec.Template, config), d.Status.CollisionCount)
	t := *d.Spec.Template.DeepCopy()
	t.Labels = clone(t.Labels)
	t.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = clone(selector.MatchLabels)
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	name := d.Name
	if most := validation.DNS1123SubdomainMaxLength - 1 - len(hash); len(name) > most {
		name = name[:most]
	}
	none := int32(0)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: name + "-" + hash, Labels: clone(t.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &none, MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: t},
	}
}

// revisionOf reads the revision annotation; 0 if there is none.
func revisionOf(rs *appsv1.ReplicaSet) (int64, error) {
	v, ok := rs.Annotations[revisionAnnotation]
	if !ok {
		return 0, nil
	}
	return strconv.ParseInt(v, 10, 64)
}

// nextRevision is one more than the highest revision of the old ReplicaSets.
func (r *progress) nextRevision() int64 {
	highest := int64(0)
	for _, s := range r.old {
		if n, err := revisionOf(s.ReplicaSet); err == nil {
			highest = max(highest, n)
		}
	}
	return highest + 1
}

// annotateFresh copies d's annotations to its new ReplicaSet rs and raises its revision to next. A ReplicaSet that gets
// another revision was rolled back to; the revisions it had are kept in its history.
func annotateFresh(rs *appsv1.ReplicaSet, d *appsv1.Deployment, next int64, isNew bool) {
	rs.Annotations = clone(rs.Annotations)
	for k, v := range d.Annotations {
		if !own(k) {
			rs.Annotations[k] = v
		}
	}
	was, ok := rs.Annotations[revisionAnnotation]
	had, err := revisionOf(rs)
	if err != nil && was != "" || err == nil && had >= next {
		return // somebody else's number, or already the highest
	}
	rs.Annotations[revisionAnnotation] = strconv.FormatInt(next, 10)
	if ok && was != "" && !isNew {
		rs.Annotations[revisionHistoryAnnotation] = addHistory(rs.Annotations[revisionHistoryAnnotation], was)
	}
}

// addHistory appends a revision to a comma-separated history and drops the first ones where it grows too long.
func addHistory(history, revision string) string {
	if history == "" {
		return revision
	}
	history += "," + revision
	for len(history) > maxHistory {
		_, rest, ok := strings.Cut(history, ",")
		if !ok {
			return history
		}
		history = rest
	}
	return history
}

// annotateSize records the size of d on rs: by it a later change of size is recognised and spread in proportion.
func annotateSize(rs *appsv1.ReplicaSet, d *appsv1.Deployment) {
	surge, _ := bounds(d)
	rs.Annotations = clone(rs.Annotations)
	rs.Annotations[desiredAnnotation] = strconv.Itoa(int(*d.Spec.Replicas))
	rs.Annotations[maxAnnotation] = strconv.Itoa(int(*d.Spec.Replicas + surge))
}

// annotatedSize reads one of the size annotations.
func annotatedSize(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	v, ok := rs.Annotations[key]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 31)
	return int32(n), err == nil
}
