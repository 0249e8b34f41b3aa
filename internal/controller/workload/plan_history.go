package workload

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/dump"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
)

// TemplateHash names a template, as Kubernetes does, so that a cluster that moves keeps its names. collisions tells templates apart that
// happen to have the same hash.
func TemplateHash(t *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*t))
	if collisions != nil {
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(*collisions)))
		h.Write(make([]byte, 4)) // the count is written as eight bytes
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// DataHash names a revision by its data. It differs from TemplateHash, as Kubernetes' StatefulSets and DaemonSets do.
func DataHash(data []byte, collisions int32) string {
	h := fnv.New32()
	h.Write(data)
	h.Write(strconv.AppendInt(nil, int64(collisions), 10))
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// TemplateData is what a ControllerRevision keeps of a template: the strategic merge patch that brings it back, byte for byte as
// Kubernetes writes it. kubectl rollout undo sends it as it is.
func TemplateData(t *corev1.PodTemplateSpec) ([]byte, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding a pod template: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("encoding a pod template: %w", err)
	}
	fields["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
}

// TemplateOf returns the template that a revision keeps.
func TemplateOf(rev *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var patch struct {
		Spec struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(rev.Data.Raw, &patch); err != nil {
		return nil, fmt.Errorf("reading ControllerRevision %s: %w", rev.Name, err)
	}
	if patch.Spec.Template == nil {
		return nil, fmt.Errorf("reading ControllerRevision %s: it keeps no pod template", rev.Name)
	}
	return patch.Spec.Template, nil
}

// maxRevisionPrefix is how much of an owner's name stands in its revisions' names.
const maxRevisionPrefix = 223

// RevisionName is the name of owner's revision with a hash.
func RevisionName(owner, hash string) string {
	return owner[:min(len(owner), maxRevisionPrefix)] + "-" + hash
}

// NewRevision returns a revision of owner that keeps data. Its name, number and hash label are the caller's to set.
func NewRevision(owner metav1.Object, ref metav1.OwnerReference, template *corev1.PodTemplateSpec, data []byte) *appsv1.ControllerRevision {
	labels := map[string]string{}
	for k, v := range template.Labels {
		labels[k] = v
	}
	annotations := map[string]string{}
	for k, v := range owner.GetAnnotations() {
		annotations[k] = v
	}
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: owner.GetNamespace(), Labels: labels, Annotations: annotations, OwnerReferences: []metav1.OwnerReference{ref}},
		Data:       runtime.RawExtension{Raw: data},
	}
}

// SortRevisions orders revisions by number, then age, then name.
func SortRevisions(revisions []*appsv1.ControllerRevision) {
	slices.SortStableFunc(revisions, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
}

// Place is where an owner's present template stands in its history.
type Place struct {
	// Same are the revisions that keep it, the one in force last. There is more than one only if somebody else made them.
	Same []*appsv1.ControllerRevision
	// Others are the rest, lowest number first.
	Others []*appsv1.ControllerRevision
	// Number is what the number of the revision in force has to be: higher than that of all others. A template that was rolled back to
	// gets a new one.
	Number int64
}

// Current returns the stored revision in force, or nil where there is none.
func (p Place) Current() *appsv1.ControllerRevision {
	if len(p.Same) == 0 {
		return nil
	}
	return p.Same[len(p.Same)-1]
}

// PlaceIn finds data among revisions. config is what the pods' ConfigMaps and Secrets hold, where they roll with that: a revision that was
// made for something else is another one.
func PlaceIn(revisions []*appsv1.ControllerRevision, data []byte, config *podconfig.Now) Place {
	p := Place{Number: 1}
	revisions = slices.Clone(revisions)
	SortRevisions(revisions)
	var same []*appsv1.ControllerRevision
	for _, r := range revisions {
		if bytes.Equal(r.Data.Raw, data) {
			same = append(same, r)
		}
	}
	p.Same = madeFor(same, config)
	for _, r := range revisions {
		if !slices.Contains(p.Same, r) {
			p.Others = append(p.Others, r)
			p.Number = max(p.Number, r.Revision+1)
		}
	}
	if c := p.Current(); c != nil {
		p.Number = max(p.Number, c.Revision)
	}
	return p
}

// madeFor returns those of revisions of one template, lowest number first, that were made for config. The latest one that was not made for
// anything is taken to be: opting in rolls nothing, nor does data that was missing and has come. As long as data is missing, the latest
// one stays.
func madeFor(same []*appsv1.ControllerRevision, config *podconfig.Now) []*appsv1.ControllerRevision {
	labelled := func(r *appsv1.ControllerRevision) bool { return r.Labels[rollout.ConfigHash] != "" }
	if !slices.ContainsFunc(same, labelled) {
		return same
	}
	latest := same[len(same)-1:]
	if config == nil || config.Hash == "" {
		return latest
	}
	var right []*appsv1.ControllerRevision
	for _, r := range same {
		if r.Labels[rollout.ConfigHash] == config.Hash {
			right = append(right, r)
		}
	}
	if right == nil && !labelled(latest[0]) {
		return latest
	}
	return right
}
