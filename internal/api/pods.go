package api

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/helper/qos"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/features"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-io/knarr/internal/api/apparmor"
)

// Pods are core/v1 pods.
var Pods = declare(kind[corev1.Pod, core.Pod, corev1.PodList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Pod"),
		Plural:           "pods", Singular: "pod", ShortNames: []string{"po"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "pods", Status: true, AnswersDeleted: true,
		Indexes: map[string]func(Object) []string{IndexNode: nodeOfPod, IndexJob: jobOfPod, IndexClaim: claimsOfPod, IndexVolumeClaim: volumeClaimsOfPod},
		History: 16384, // they change more often than all others together
		Share:   sharePod,
		ResetFields: map[string]fieldpath.Filter{
			"status":              without("spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
			"ephemeralcontainers": only("spec.ephemeralContainers"),
			"resize": only("spec.containers.*.resources", "spec.containers.*.resizePolicy",
				"spec.initContainers.*.resources", "spec.initContainers.*.resizePolicy"),
		},
		Subresources: []Subresource{
			{Name: "attach", Kind: corev1.SchemeGroupVersion.WithKind("PodAttachOptions"), Verbs: []string{"create", "get"}},
			{Name: "binding", Kind: corev1.SchemeGroupVersion.WithKind("Binding"), Verbs: []string{"create"}},
			{Name: "ephemeralcontainers", Kind: corev1.SchemeGroupVersion.WithKind("Pod"), Verbs: []string{"get", "patch", "update"}},
			{Name: "eviction", Kind: policyv1.SchemeGroupVersion.WithKind("Eviction"), Verbs: []string{"create"}},
			{Name: "exec", Kind: corev1.SchemeGroupVersion.WithKind("PodExecOptions"), Verbs: []string{"create", "get"}},
			{Name: "log", Kind: corev1.SchemeGroupVersion.WithKind("Pod"), Verbs: []string{"get"}},
			{Name: "portforward", Kind: corev1.SchemeGroupVersion.WithKind("PodPortForwardOptions"), Verbs: []string{"create", "get"}},
			{Name: "proxy", Kind: corev1.SchemeGroupVersion.WithKind("PodProxyOptions"), Verbs: []string{"create", "delete", "get", "patch", "update"}, Open: true},
			{Name: "resize", Kind: corev1.SchemeGroupVersion.WithKind("Pod"), Verbs: []string{"get", "patch", "update"}},
		},
	},
	prepareCreate:  preparePodCreate,
	prepareUpdate:  preparePodUpdate,
	validate:       validatePod,
	validateUpdate: validatePodUpdate,
	warnings:       podWarnings,
	fields:         podFields,
	grace:          podGrace,
})

// preparePodCreate starts every pod as Pending. Status is the node's to tell; only the quality of service, which
// follows from the spec, and the gates that hold scheduling back are known now.
func preparePodCreate(pod *core.Pod) {
	pod.Generation = 1 // KEP-5067
	pod.Status = core.PodStatus{Phase: core.PodPending}
	podutil.DropDisabledPodFields(pod, nil)
	if len(pod.Spec.SchedulingGates) > 0 { // KEP-3521
		pod.Status.Conditions = []core.PodCondition{{
			Type:    core.PodScheduled,
			Status:  core.ConditionFalse,
			Reason:  corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	mergeLabelKeys(pod)
	apparmor.ReadAnnotations(pod)
	podutil.DefaultPodLevelResources(pod) // KEP-2837
	pod.Status.QOSClass = qos.GetPodQOS(pod)
}

func preparePodUpdate(pod, old *core.Pod, sub string) {
	// First of all, while pod shares nothing with old, which others read: dropping writes in place.
	podutil.DropDisabledPodFields(pod, old)
	switch sub {
	case "status":
		preparePodStatus(pod, old)
		return
	case "ephemeralcontainers":
		added := pod.Spec.EphemeralContainers
		keepAllButMeta(pod, old)
		pod.Spec.EphemeralContainers = added
	case "resize":
		preparePodResize(pod, old)
	default:
		pod.Status = old.Status
		if pod.Spec.Resources == nil && old.Spec.Resources != nil {
			// A client that does not know pod-level resources drops the field; it does not mean to.
			pod.Spec.Resources = old.Spec.Resources.DeepCopy()
		}
	}
	if !apiequality.Semantic.DeepEqual(pod.Spec, old.Spec) {
		pod.Generation++ // KEP-5067
	}
}

// preparePodStatus keeps what a status writer may not touch, and what older writers are known to drop.
func preparePodStatus(pod, old *core.Pod) {
	pod.Spec = old.Spec
	pod.DeletionTimestamp = old.DeletionTimestamp
	pod.OwnerReferences = old.OwnerReferences
	s, was := &pod.Status, &old.Status
	if s.QOSClass == "" {
		s.QOSClass = was.QOSClass
	}
	if s.ResourceClaimStatuses == nil {
		s.ResourceClaimStatuses = was.ResourceClaimStatuses
	}
	if s.ExtendedResourceClaimStatus == nil {
		s.ExtendedResourceClaimStatus = was.ExtendedResourceClaimStatus
	}
	if s.NodeAllocatableResourceClaimStatuses == nil {
		s.NodeAllocatableResourceClaimStatuses = was.NodeAllocatableResourceClaimStatuses
	}
	keepObservedGeneration(s, was)
}

// keepObservedGeneration fills observedGeneration where the writer left it out, in the status and, matching
// conditions of one type in order, in the conditions.
func keepObservedGeneration(s, was *core.PodStatus) {
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = was.ObservedGeneration
	}
	for i := range s.Conditions {
		if s.Conditions[i].ObservedGeneration != 0 {
			continue
		}
		nth := 0
		for _, c := range s.Conditions[:i] {
			if c.Type == s.Conditions[i].Type {
				nth++
			}
		}
		for _, c := range was.Conditions {
			if c.Type != s.Conditions[i].Type {
				continue
			}
			if nth == 0 {
				s.Conditions[i].ObservedGeneration = c.ObservedGeneration
				break
			}
			nth--
		}
	}
}

// preparePodResize lets resources and resize policies through and nothing else (KEP-1287). A list of containers that
// was changed otherwise is left as it is, for validation to refuse.
func preparePodResize(pod, old *core.Pod) {
	if len(pod.Spec.Containers) != len(old.Spec.Containers) || len(pod.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return
	}
	containers := resizedContainers(pod.Spec.Containers, old.Spec.Containers)
	inits := resizedContainers(pod.Spec.InitContainers, old.Spec.InitContainers)
	resources, volumes := pod.Spec.Resources, pod.Spec.Volumes
	keepAllButMeta(pod, old)
	pod.Spec.Containers, pod.Spec.InitContainers = containers, inits
	if enabled(features.InPlacePodLevelResourcesVerticalScaling) {
		pod.Spec.Resources = resources
	}
	if enabled(features.InPlacePodVerticalScalingMemoryBackedVolumes) {
		pod.Spec.Volumes = volumes
	}
	if pod.Spec.Resources == nil && old.Spec.Resources != nil {
		pod.Spec.Resources = old.Spec.Resources.DeepCopy()
	}
	if pod.Spec.Resources != nil {
		podutil.DefaultPodLevelResources(pod)
	}
}

func resizedContainers(containers, old []core.Container) []core.Container {
	out := make([]core.Container, len(old))
	for i := range old {
		if containers[i].Name != old[i].Name {
			return containers
		}
		out[i] = old[i]
		out[i].Resources, out[i].ResizePolicy = containers[i].Resources, containers[i].ResizePolicy
	}
	return out
}

// keepAllButMeta is for subresources that change one part of the spec.
func keepAllButMeta(pod, old *core.Pod) {
	pod.Spec, pod.Status = old.Spec, old.Status
	metav1.ResetObjectMetaForStatus(&pod.ObjectMeta, &old.ObjectMeta)
}

// mergeLabelKeys writes matchLabelKeys and mismatchLabelKeys of affinity terms (KEP-3633) and spread constraints
// (KEP-3243) into their selectors, with the pod's own values, so that the scheduler reads one selector only.
func mergeLabelKeys(pod *core.Pod) {
	merge := func(sel *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		if sel == nil {
			return // matches nothing, with or without the keys
		}
		for _, key := range keys {
			if value, ok := pod.Labels[key]; ok {
				sel.MatchExpressions = append(sel.MatchExpressions,
					metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
			}
		}
	}
	term := func(t *core.PodAffinityTerm) {
		merge(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	terms := func(required []core.PodAffinityTerm, preferred []core.WeightedPodAffinityTerm) {
		for i := range preferred {
			term(&preferred[i].PodAffinityTerm)
		}
		for i := range required {
			term(&required[i])
		}
	}
	if a := pod.Spec.Affinity; a != nil && a.PodAffinity != nil {
		terms(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := pod.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		terms(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if enabled(features.MatchLabelKeysInPodTopologySpreadSelectorMerge) {
		for i := range pod.Spec.TopologySpreadConstraints {
			c := &pod.Spec.TopologySpreadConstraints[i]
			merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
		}
	}
}

func validatePod(pod *core.Pod) field.ErrorList {
	opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, nil, &pod.ObjectMeta, nil)
	opts.ResourceIsPod = true
	return corevalidation.ValidatePodCreate(pod, opts)
}

func validatePodUpdate(pod, old *core.Pod, sub string) field.ErrorList {
	opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, &old.Spec, &pod.ObjectMeta, &old.ObjectMeta)
	opts.ResourceIsPod = true
	switch sub {
	case "status":
		return corevalidation.ValidatePodStatusUpdate(pod, old, opts)
	case "ephemeralcontainers":
		return corevalidation.ValidatePodEphemeralContainersUpdate(pod, old, opts)
	case "resize":
		return corevalidation.ValidatePodResize(pod, old, opts)
	}
	return corevalidation.ValidatePodUpdate(pod, old, opts)
}

// podWarnings are given on create only: people seldom update pods, programs often.
func podWarnings(pod, old *core.Pod) []string {
	if old != nil {
		return nil
	}
	return append(nameWarning(pod.Name, "the Pod's hostname"), podutil.GetWarningsForPod(context.Background(), pod, nil)...)
}

func podFields(pod *corev1.Pod) fields.Set {
	ip := ""
	if len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.hostNetwork":         strconv.FormatBool(pod.Spec.HostNetwork),
		"spec.nodeName":            pod.Spec.NodeName,
		"spec.restartPolicy":       string(pod.Spec.RestartPolicy),
		"spec.schedulerName":       pod.Spec.SchedulerName,
		"spec.serviceAccountName":  pod.Spec.ServiceAccountName,
		"status.nominatedNodeName": pod.Status.NominatedNodeName,
		"status.phase":             string(pod.Status.Phase),
		"status.podIP":             ip,
	}
}

// podGrace is the client's wish, else the pod's own terminationGracePeriodSeconds; nothing to wait for where no
// container runs.
func podGrace(pod *corev1.Pod, requested *int64) int64 {
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0
	}
	seconds := requested
	if seconds == nil {
		seconds = pod.Spec.TerminationGracePeriodSeconds
	}
	switch {
	case seconds == nil:
		return 0
	case *seconds < 0:
		return 1 // "now", as negative values have always meant
	}
	return *seconds
}
