package api

import (
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/knarr-io/knarr/internal/api/volume"
)

// Indexes of the shared copy.
const (
	// IndexOwner holds objects of every resource by the UID of each of their owner references.
	IndexOwner = "owner"
	// IndexNode holds pods, pod certificate requests and resource slices by spec.nodeName.
	IndexNode = "node"
	// IndexJob holds pods by the UID of the Job that controls them, as long as it has not done with them: they run, are ending, or have
	// the finalizer by which Jobs count (KEP-2307). Pods with that finalizer and without a controller are at [NoJob].
	IndexJob = "job"
	// IndexClaim holds pods by NAMESPACE/NAME of each ResourceClaim that they use, of their own or made for them.
	IndexClaim = "claim"
	// IndexVolumeClaim holds pods by NAMESPACE/NAME of each PersistentVolumeClaim that their volumes mean.
	IndexVolumeClaim = "volumeclaim"
	// IndexVolume holds PersistentVolumes by what volume.FreeOf and volume.NamedBy return.
	IndexVolume = "volume"
	// IndexService holds EndpointSlices by NAMESPACE/SERVICE, from the label kubernetes.io/service-name.
	IndexService = "service"
	// IndexNodePort holds Services by PROTOCOL/PORT of their node ports.
	IndexNodePort = "nodeport"
)

// NoJob stands in IndexJob in place of a UID.
const NoJob = "none"

// withOwners returns indexes and IndexOwner.
func withOwners(indexes map[string]func(Object) []string) map[string]func(Object) []string {
	all := map[string]func(Object) []string{IndexOwner: owners}
	for name, values := range indexes {
		all[name] = values
	}
	return all
}

func owners(o Object) []string {
	refs := o.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, len(refs))
	for i := range refs {
		uids[i] = string(refs[i].UID)
	}
	return uids
}

func nodeOfPod(o Object) []string {
	if n := o.(*corev1.Pod).Spec.NodeName; n != "" {
		return []string{n}
	}
	return nil
}

func claimsOfPod(o Object) []string {
	pod := o.(*corev1.Pod)
	if len(pod.Spec.ResourceClaims) == 0 {
		return nil
	}
	var out []string
	for name := range resourceclaim.PodClaims(pod) {
		out = append(out, pod.Namespace+"/"+name)
	}
	return out
}

func volumeClaimsOfPod(o Object) []string {
	pod := o.(*corev1.Pod)
	names := volume.ClaimNames(pod)
	for i := range names {
		names[i] = pod.Namespace + "/" + names[i]
	}
	return names
}

func jobOfPod(o Object) []string {
	pod := o.(*corev1.Pod)
	counted := !slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
	ref := metav1.GetControllerOfNoCopy(pod)
	ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	switch {
	case ref == nil && !counted:
		return []string{NoJob}
	case ref == nil || ref.Kind != "Job" || ref.APIVersion != batchv1.SchemeGroupVersion.String() || counted && ended:
		return nil
	}
	return []string{string(ref.UID)}
}

func serviceOfSlice(o Object) []string {
	if s := o.GetLabels()[discoveryv1.LabelServiceName]; s != "" {
		return []string{o.GetNamespace() + "/" + s}
	}
	return nil
}

// NodePorts returns the PROTOCOL/PORT of each node port of a Service.
func NodePorts(svc *corev1.Service) []string {
	var out []string
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, NodePort(string(p.Protocol), p.NodePort))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, NodePort("TCP", p))
	}
	return out
}

// NodePort names a port of all nodes, as IndexNodePort does: PROTOCOL/PORT.
func NodePort(protocol string, port int32) string { return protocol + "/" + strconv.Itoa(int(port)) }

// NodePortKey is the key in etcd that is there as long as a node port is taken.
func NodePortKey(port string) string {
	return "/registry/ranges/servicenodeports/" + strings.ToLower(port)
}
