package node

import (
	"context"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// noVolumes stands in for the disk on hollow nodes: every volume is there, nothing is mounted.
type noVolumes struct{}

func (noVolumes) Setup(context.Context, *corev1.Pod, volume.Source, podspec.Facts) (map[string]volume.Mounted, time.Time, error) {
	return nil, time.Time{}, nil
}

func (noVolumes) Mounts(*corev1.Pod, *corev1.Container, map[string]volume.Mounted, []*cri.KeyValue) ([]*cri.Mount, error) {
	return nil, nil
}

func (noVolumes) Hosts(string, []byte) (string, error)                    { return "", nil }
func (noVolumes) MessageFile(string, string, int32) (string, error)       { return "", nil }
func (noVolumes) Message(string, string, int32) string                    { return "" }
func (noVolumes) Teardown(context.Context, string) error                  { return nil }
func (noVolumes) Pods() []string                                          { return nil }
func (noVolumes) Uses(context.Context, *corev1.Pod) map[string]volume.Use { return nil }

// noCgroups stands in for the machine's control groups on hollow nodes.
type noCgroups struct{}

func (noCgroups) Setup(string, podspec.PodResources) (string, error) { return "", nil }
func (noCgroups) Raise(string, podspec.PodResources) error           { return nil }
func (noCgroups) Remove(string) error                                { return nil }
func (noCgroups) Pods() []string                                     { return nil }
func (noCgroups) V2() bool                                           { return true }
func (noCgroups) PodUsage(string) (cgroup.Usage, error)              { return cgroup.Usage{}, os.ErrNotExist }
func (noCgroups) MachineUsage() (cgroup.Usage, error)                { return cgroup.Usage{}, os.ErrNotExist }
func (noCgroups) Details(string, string) (cgroup.Details, error) {
	return cgroup.Details{}, os.ErrNotExist
}
func (noCgroups) Processes(string, string) ([]int, error) { return nil, os.ErrNotExist }

// noDevices stands in for the drivers of devices on hollow nodes: every claim is ready.
type noDevices struct{}

func (noDevices) Prepare(context.Context, *corev1.Pod) error  { return nil }
func (noDevices) Unprepare(context.Context, types.UID) error  { return nil }
func (noDevices) Pods() []types.UID                           { return nil }
func (noDevices) For(*corev1.Pod, *corev1.Container) []string { return nil }

// healthy answers every probe of a hollow pod: there is no process to ask.
type healthy struct{}

func (healthy) Run(context.Context, *corev1.Probe, probe.Target) (probe.Outcome, string) {
	return probe.Succeeded, ""
}

func (healthy) Get(context.Context, *corev1.HTTPGetAction, time.Duration, probe.Target) (int, string, error) {
	return 200, "", nil
}
