package podspec

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/amount"
)

// Facts are what the downward API knows besides the pod itself.
type Facts struct {
	PodIPs, HostIPs []string
	// Allocatable stands in for limits that a container does not set.
	Allocatable corev1.ResourceList
}

// Field returns the pod's field that a fieldRef names.
func Field(pod *corev1.Pod, path string, f Facts) (string, error) {
	if i := strings.IndexByte(path, '['); i > 0 && strings.HasSuffix(path, "']") {
		key := strings.TrimSuffix(strings.TrimPrefix(path[i:], "['"), "']")
		switch path[:i] {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(f.HostIPs), nil
	case "status.hostIPs":
		return strings.Join(f.HostIPs, ","), nil
	case "status.podIP":
		return first(f.PodIPs), nil
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), nil
	}
	return "", fmt.Errorf("field path %q is not supported by the downward API", path)
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}

// formatMap prints key="value" lines in order, as the downward API's files show labels and annotations.
func formatMap(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for i, k := range keys {
		keys[i] = k + "=" + strconv.Quote(m[k])
	}
	return strings.Join(keys, "\n")
}

// Resource returns the container resource that a resourceFieldRef names, in units of its divisor, rounded up.
func Resource(pod *corev1.Pod, container string, ref *corev1.ResourceFieldSelector, f Facts) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	c := findContainer(pod, container)
	if c == nil {
		return "", fmt.Errorf("resourceFieldRef names container %q, which the pod does not have", container)
	}
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok || (kind != "limits" && kind != "requests") {
		return "", fmt.Errorf("resourceFieldRef.resource %q: want limits.RESOURCE or requests.RESOURCE", ref.Resource)
	}
	rn := corev1.ResourceName(name)
	q := c.Resources.Requests[rn]
	if kind == "limits" {
		var set bool
		if q, set = c.Resources.Limits[rn]; !set && pod.Spec.Resources != nil {
			q, set = pod.Spec.Resources.Limits[rn] // the pod's is the container's (KEP-2837)
		}
		if !set {
			q = f.Allocatable[rn] // without a limit: all that the node has
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	return ceilDiv(amount.Of(rn, q), amount.Of(rn, divisor)), nil
}

func ceilDiv(a, b int64) string {
	if b == 0 {
		b = 1
	}
	n := a / b
	if a%b > 0 {
		n++
	}
	return strconv.FormatInt(n, 10)
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return (*corev1.Container)(&e.EphemeralContainerCommon)
		}
	}
	return nil
}

// FindContainer returns the pod's container, init container or ephemeral container of that name, or nil.
func FindContainer(pod *corev1.Pod, name string) *corev1.Container { return findContainer(pod, name) }
