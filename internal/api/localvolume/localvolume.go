// Package localvolume says what a volume of the built-in StorageClass knarr-local looks like in the API, for those who make one, those
// who place pods by it, and the agents that keep them.
//
// What must stay true: nobody takes another driver's volume for one of these, and a handle names one directory and nothing else.
// Tests: TestHandlesNameOneDirectory, TestWhoseVolumeItIs.
package localvolume

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// Driver is the name in spec.csi.driver of the volumes, which no CSI driver serves: each node's agent does. It is the class' provisioner, too.
	Driver = "local.knarr.io"
	// Finalizer keeps a PersistentVolume until the agent of its node has removed its directory.
	Finalizer = "local.knarr.io/directory"
	// CapacityAnnotation of a Node is how many bytes its local volumes may take in all, in decimal.
	CapacityAnnotation = "local.knarr.io/capacity"
	// LimitAttribute is the parameter of a class, and the attribute of its volumes, that says what holds a volume to its size: LimitNone, which
	// is nothing and the default, or LimitLoop, a file system of that size in a file.
	LimitAttribute = "limit"
	LimitNone      = "none"
	LimitLoop      = "loop"
)

// Is reports whether a volume is a local one.
func Is(pv *corev1.PersistentVolume) bool { return pv.Spec.CSI != nil && pv.Spec.CSI.Driver == Driver }

// On reports whether a volume is a local one of the node, by the one host name that its node affinity asks for.
func On(pv *corev1.PersistentVolume, node string) bool {
	a := pv.Spec.NodeAffinity
	if !Is(pv) || a == nil || a.Required == nil || len(a.Required.NodeSelectorTerms) != 1 {
		return false
	}
	for _, e := range a.Required.NodeSelectorTerms[0].MatchExpressions {
		if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
			return e.Values[0] == node
		}
	}
	return false
}

// CheckHandle returns why a volume handle cannot name a directory, or nil: it is one name, no path, and none that stands for something else.
func CheckHandle(handle string) error {
	if handle == "" || len(handle) > 200 || strings.HasPrefix(handle, ".") || strings.ContainsAny(handle, "/\x00") {
		return fmt.Errorf("volume handle %q cannot name a directory", handle)
	}
	return nil
}
