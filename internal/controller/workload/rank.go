package workload

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// Rank orders pods so that those to delete first come first. The order is Kubernetes' for ReplicaSets
// (https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset and KEP-2185): what does the
// least work goes first, then what was marked cheap, then what shares its node with many of related, then what is young.
func Rank(pods, related []*corev1.Pod, now time.Time) {
	onNode := map[string]int{}
	for _, p := range related {
		if podstate.Active(p) {
			onNode[p.Spec.NodeName]++
		}
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(
			compareWork(a, b),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]), // doubled up goes first
			compareLife(a, b, func(ta, tb time.Time) int {
				return cmp.Or(cmp.Compare(magnitude(now.Sub(ta)), magnitude(now.Sub(tb))), cmp.Compare(a.UID, b.UID))
			}),
		)
	})
}

// RankByAge is the order of the pods of Jobs: what does the least work goes first, and then the younger, to the second.
func RankByAge(pods []*corev1.Pod) {
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(compareWork(a, b), compareLife(a, b, func(ta, tb time.Time) int { return tb.Compare(ta) }))
	})
}

// compareWork puts the pod first that does less.
func compareWork(a, b *corev1.Pod) int {
	return cmp.Or(
		falseFirst(a.Spec.NodeName != "", b.Spec.NodeName != ""),
		cmp.Compare(phaseOrder(a), phaseOrder(b)),
		falseFirst(podstate.Ready(a), podstate.Ready(b)),
	)
}

// compareLife puts the pod first that was ready for less, restarted more, or is younger. compareAge compares two times that differ; one that is
// not known counts as the youngest.
func compareLife(a, b *corev1.Pod, compareAge func(ta, tb time.Time) int) int {
	age := func(ta, tb time.Time) int {
		switch {
		case ta.Equal(tb):
			return 0
		case ta.IsZero() || tb.IsZero():
			return falseFirst(!ta.IsZero(), !tb.IsZero())
		}
		return compareAge(ta, tb)
	}
	if podstate.Ready(a) && podstate.Ready(b) {
		if c := age(podstate.ReadySince(a), podstate.ReadySince(b)); c != 0 {
			return c
		}
	}
	return cmp.Or(compareRestarts(a, b), age(a.CreationTimestamp.Time, b.CreationTimestamp.Time))
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func phaseOrder(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodUnknown:
		return 1
	case corev1.PodRunning:
		return 2
	}
	return 0 // Pending; finished pods are not ranked
}

// deletionCost reads the annotation controller.kubernetes.io/pod-deletion-cost; nonsense counts as 0. A leading plus or
// zeros are nonsense, as the API's validation has it.
func deletionCost(p *corev1.Pod) int32 {
	s, ok := p.Annotations[corev1.PodDeletionCost]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return 0
	}
	return int32(n)
}

// magnitude is the order of magnitude of an age. By it, and equals by UID, the choice between pods of about the same age is as good as random
// (KEP-2185).
func magnitude(age time.Duration) int {
	if age <= 0 {
		return -1
	}
	return int(math.Log2(float64(age)))
}

// compareRestarts puts the pod first whose worst container restarted more often; sidecars count only between equals.
func compareRestarts(a, b *corev1.Pod) int {
	mainA, sideA := restarts(a)
	mainB, sideB := restarts(b)
	return cmp.Or(cmp.Compare(mainB, mainA), cmp.Compare(sideB, sideA))
}

func restarts(p *corev1.Pod) (main, sidecars int32) {
	for _, s := range p.Status.ContainerStatuses {
		main = max(main, s.RestartCount)
	}
	for _, s := range p.Status.InitContainerStatuses {
		if slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool {
			return c.Name == s.Name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		}) {
			sidecars = max(sidecars, s.RestartCount)
		}
	}
	return main, sidecars
}
