package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

// newRevision returns the revision of ds's template, whose data is data, for pods that use config, where they roll with that.
func newRevision(ds *appsv1.DaemonSet, data []byte, config *podconfig.Now, number int64, collisions *int32) *appsv1.ControllerRevision {
	rev := workload.NewRevision(ds, *metav1.NewControllerRef(ds, setKind()), &ds.Spec.Template, data)
	t := &ds.Spec.Template
	if config != nil {
		t = podconfig.Named(t, config.Hash)
	}
	hash := workload.TemplateHash(t, collisions)
	workload.LabelConfig(rev, config)
	rev.Name, rev.Revision = workload.RevisionName(ds.Name, hash), number
	rev.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	return rev
}

// hashOf returns the hash that the pods of a revision have. One that was made without it goes by its name.
func hashOf(rev *appsv1.ControllerRevision) string {
	if hash := rev.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]; hash != "" {
		return hash
	}
	return rev.Name
}

// excess returns the old revisions beyond the history limit, lowest number first. Those that pods are of stay.
func excess(ds *appsv1.DaemonSet, old []*appsv1.ControllerRevision, pods []*corev1.Pod) []*appsv1.ControllerRevision {
	limit := ds.Spec.RevisionHistoryLimit
	if limit == nil || len(old) <= int(*limit) {
		return nil
	}
	live := map[string]bool{}
	for _, p := range pods {
		live[p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	var out []*appsv1.ControllerRevision
	for _, rev := range old {
		if len(out) < len(old)-int(*limit) && !live[hashOf(rev)] && rev.DeletionTimestamp == nil {
			out = append(out, rev)
		}
	}
	return out
}
