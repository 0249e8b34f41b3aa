package statefulset

import (
	"bytes"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

// hashLabel has the hash in a revision's name.
const hashLabel = "controller.kubernetes.io/hash"

// newRevision returns the revision of set's template, whose data is data, for pods that use config, where they roll with that.
func newRevision(set *appsv1.StatefulSet, data []byte, config *podconfig.Now, number int64, collisions int32) *appsv1.ControllerRevision {
	rev := workload.NewRevision(set, controllerRef(set, setKind()), &set.Spec.Template, data)
	hashed := data
	if config != nil {
		hashed = slices.Concat(data, []byte(config.Hash))
	}
	hash := workload.DataHash(hashed, collisions)
	workload.LabelConfig(rev, config)
	rev.Name, rev.Revision = workload.RevisionName(set.Name, hash), number
	rev.Labels[hashLabel] = hash
	return rev
}

func revisionFrom(rev *appsv1.ControllerRevision) (revision, error) {
	template, err := workload.TemplateOf(rev)
	return revision{rev.Name, template}, err
}

// madeFor reports whether a revision was made for config, or for nothing that is known.
func madeFor(rev *appsv1.ControllerRevision, config *podconfig.Now) bool {
	hash := rev.Labels[rollout.ConfigHash]
	return config == nil || config.Hash == "" || hash == "" || hash == config.Hash
}

// means reports whether a revision keeps the template of set in other words: one that was written before a field and its default
// existed. Pods do not roll because the server is another.
func means(set *appsv1.StatefulSet, rev *appsv1.ControllerRevision, data []byte) bool {
	template, err := workload.TemplateOf(rev)
	if err != nil {
		return false
	}
	set = set.DeepCopy()
	set.Spec.Template = *template
	api.StatefulSets.Default(set)
	got, err := workload.TemplateData(&set.Spec.Template)
	return err == nil && bytes.Equal(got, data)
}

// excess returns the revisions beyond the history limit, lowest number first. Those that pods are of, or that the status names, stay.
func excess(set *appsv1.StatefulSet, status appsv1.StatefulSetStatus, revisions []*appsv1.ControllerRevision, pods []*corev1.Pod) []*appsv1.ControllerRevision {
	live := map[string]bool{status.CurrentRevision: true, status.UpdateRevision: true}
	for _, p := range pods {
		live[revisionOf(p)] = true
	}
	var idle []*appsv1.ControllerRevision
	for _, rev := range revisions {
		if !live[rev.Name] && rev.DeletionTimestamp == nil {
			idle = append(idle, rev)
		}
	}
	limit := set.Spec.RevisionHistoryLimit
	if limit == nil || *limit < 0 || len(idle) <= int(*limit) {
		return nil
	}
	return idle[:len(idle)-int(*limit)]
}
