// Package localvolume says what a volume of the built-in StorageClass knarr-local looks like in the API, for those who make one, those
// who place pods by it, and the agents that keep them.
//
// What must stay true: nobody takes another driver's volume for one of these, a handle names one directory and nothing else, and a volume
// that was made once is never taken for a new one. Tests: TestHandlesNameOneDirectory, TestWhoseVolumeItIs, TestMarkedOnce.
package localvolume

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// Driver is the name in spec.csi.driver of the volumes, which no CSI driver serves: each node's agent does. It is the class' provisioner, too.
	Driver = "local.knarr.io"
	// Finalizer keeps a PersistentVolume until the agent of its node has removed its directory.
	Finalizer = "local.knarr.io/directory"
	// NodeLabel of a PersistentVolume is the host name of its node, by which an agent follows its own volumes alone.
	NodeLabel = "local.knarr.io/node"
	// MadeAnnotation of a PersistentVolume says when its node has made its directory. A directory that is missing later is lost, not new.
	MadeAnnotation = "local.knarr.io/made"
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

// On reports whether a volume is a local one of the node.
func On(pv *corev1.PersistentVolume, node string) bool { return node != "" && Host(pv) == node }

// Host returns the one host name that the node affinity of a local volume asks for; "" where there is none, or the volume is none.
func Host(pv *corev1.PersistentVolume) string {
	a := pv.Spec.NodeAffinity
	if !Is(pv) || a == nil || a.Required == nil || len(a.Required.NodeSelectorTerms) != 1 {
		return ""
	}
	for _, e := range a.Required.NodeSelectorTerms[0].MatchExpressions {
		if e.Key == corev1.LabelHostname && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
			return e.Values[0]
		}
	}
	return ""
}

// Made reports whether the node of a volume has made its directory.
func Made(pv *corev1.PersistentVolume) bool { return pv.Annotations[MadeAnnotation] != "" }

// Mark notes in a volume that its directory was made, and reports whether that was news.
func Mark(pv *corev1.PersistentVolume, now time.Time) bool {
	if Made(pv) {
		return false
	}
	if pv.Annotations == nil {
		pv.Annotations = map[string]string{}
	}
	pv.Annotations[MadeAnnotation] = now.UTC().Format(time.RFC3339)
	return true
}

// CheckHandle returns why a volume handle cannot name a directory, or nil: it is one name, no path, and none that stands for something else.
func CheckHandle(handle string) error {
	if handle == "" || len(handle) > 200 || strings.HasPrefix(handle, ".") || strings.ContainsAny(handle, "/\x00") {
		return fmt.Errorf("volume handle %q cannot name a directory", handle)
	}
	return nil
}
