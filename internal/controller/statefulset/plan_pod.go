package statefulset

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

func setKind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("StatefulSet") }
func podKind() schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind("Pod") }

func startOf(set *appsv1.StatefulSet) int {
	if set.Spec.Ordinals != nil {
		return int(set.Spec.Ordinals.Start)
	}
	return 0
}

// parse splits the name of a pod into its set's name and its ordinal, which is -1 where the name is none that a set gives.
func parse(name string) (set string, ordinal int) {
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return "", -1
	}
	n, err := strconv.ParseUint(name[at+1:], 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != name[at+1:] {
		return "", -1
	}
	return name[:at], int(n)
}

func ordinalOf(p *corev1.Pod) int {
	_, n := parse(p.Name)
	return n
}

func podName(set *appsv1.StatefulSet, ordinal int) string {
	return set.Name + "-" + strconv.Itoa(ordinal)
}

// claim is ownership.Sort for pods that have a name of the set's. Others are released, however well the selector matches them.
func claim(set *appsv1.StatefulSet, selector labels.Selector, pods []*corev1.Pod) (mine, adopt, release []*corev1.Pod) {
	mine, adopt, release = ownership.Sort(set, selector, pods)
	stranger := func(p *corev1.Pod) bool {
		name, _ := parse(p.Name)
		return name != set.Name
	}
	adopt = slices.DeleteFunc(adopt, stranger)
	if set.DeletionTimestamp == nil {
		for _, p := range mine {
			if stranger(p) {
				release = append(release, p)
			}
		}
	}
	return slices.DeleteFunc(mine, stranger), adopt, release
}

// revisionOf names the revision that a pod was made from.
func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.StatefulSetRevisionLabel] }

// newPod returns the pod of set with an ordinal, made from rev.
func newPod(set *appsv1.StatefulSet, rev revision, ordinal int) *corev1.Pod {
	p := workload.NewPod(set, setKind(), rev.template)
	p.GenerateName, p.Name = "", podName(set, ordinal)
	identify(p, ordinal)
	p.Labels[appsv1.StatefulSetRevisionLabel] = rev.name
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	p.Spec.Volumes = volumes(set, ordinal, p.Spec.Volumes)
	return p
}

// identify sets the labels by which a pod is known as the member with an ordinal.
func identify(p *corev1.Pod, ordinal int) {
	p.Labels = maps.Clone(p.Labels)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
}

// volumes returns volumes of set's claims, and those of others that do not have the name of one.
func volumes(set *appsv1.StatefulSet, ordinal int, others []corev1.Volume) []corev1.Volume {
	var out []corev1.Volume
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		out = append(out, corev1.Volume{Name: t.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(set, t, ordinal)}}})
	}
	for _, v := range others {
		if !slices.ContainsFunc(set.Spec.VolumeClaimTemplates, func(t corev1.PersistentVolumeClaim) bool { return t.Name == v.Name }) {
			out = append(out, v)
		}
	}
	return out
}

// mended returns p with the labels and volumes of a member, or nil where it has them.
func mended(set *appsv1.StatefulSet, p *corev1.Pod) *corev1.Pod {
	ordinal := ordinalOf(p)
	named, stored := p.Labels[appsv1.StatefulSetPodNameLabel] == p.Name, storageMatches(set, p)
	if named && stored {
		return nil
	}
	p = p.DeepCopy()
	if !named {
		identify(p, ordinal)
	}
	if !stored {
		p.Spec.Volumes = volumes(set, ordinal, p.Spec.Volumes)
	}
	return p
}

// storageMatches reports whether p has a volume for each of set's claims.
func storageMatches(set *appsv1.StatefulSet, p *corev1.Pod) bool {
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
			return v.Name == t.Name && v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claimName(set, t, ordinalOf(p))
		}) {
			return false
		}
	}
	return true
}

// ordinals returns those whose claims a plan looks at: of the pods that are there, and of the first that are missing.
func ordinals(set *appsv1.StatefulSet, pods []*corev1.Pod) []int {
	there := map[int]bool{}
	var out []int
	for _, p := range pods {
		if name, n := parse(p.Name); name == set.Name && !there[n] {
			there[n] = true
			out = append(out, n)
		}
	}
	missing := 0
	for n := startOf(set); n < startOf(set)+int(*set.Spec.Replicas) && missing < burst; n++ {
		if !there[n] {
			missing++
			out = append(out, n)
		}
	}
	return out
}

// controllerRef refers to owner as the controller.
func controllerRef(owner metav1.Object, kind schema.GroupVersionKind) metav1.OwnerReference {
	return *metav1.NewControllerRef(owner, kind)
}
