package pod

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/images"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/sources"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// Host is what pods need of their node.
type Host struct {
	Node    Node
	Client  client.Client
	Runtime runtime.Runtime
	Volumes Volumes
	Cgroups Cgroups
	Devices Devices
	Prober  Prober
	Probes  *probe.Metrics

	Ledger  *ledger.Ledger
	Images  *images.Store
	Sources *sources.Sources
	Events  *events.Recorder
	Tasks   *task.Group
	Log     *slog.Logger

	Statuses Statuses
	Self     Self
}

// Node is what does not change about a node while its agent runs.
type Node struct {
	IPs                   []string // the primary first
	Capacity, Allocatable corev1.ResourceList
	DNS                   podspec.DNS
	// PodDir, LogDir and SeccompDir are directories with a directory for each pod, with pods' logs, and with seccomp profiles.
	PodDir, LogDir, SeccompDir string
	// Hollow pods have no processes, files or control groups.
	Hollow bool
}

// Statuses writes pods' statuses to the API.
type Statuses interface {
	// Changed says that the worker's status is no longer what the API has. The worker's lock is held.
	Changed(w *Worker)
}

// Self is what the node knows about itself.
type Self interface {
	// Node returns the Node object as it was last read or written; nil before. ReadNode reads it anew.
	Node() *corev1.Node
	ReadNode(ctx context.Context)
	// Shortage is what the node runs short of.
	Shortage() lifecycle.Shortage
	// NetworkProblem asks the runtime what is wrong with pods' network; "" for nothing.
	NetworkProblem(ctx context.Context) string
}

// warn logs an error of something that is tried again another time.
func (h *Host) warn(what string, err error, args ...any) {
	if err != nil {
		h.Log.Warn(what+" failed", append(args, "err", err)...)
	}
}

// Volumes makes pods' volumes; [volume.Disk], or nothing on hollow nodes.
type Volumes interface {
	Setup(ctx context.Context, pod *corev1.Pod, src volume.Source, facts podspec.Facts) (map[string]volume.Mounted, time.Time, error)
	Mounts(pod *corev1.Pod, c *corev1.Container, volumes map[string]volume.Mounted, env []*cri.KeyValue) ([]*cri.Mount, error)
	Hosts(uid string, content []byte) (string, error)
	MessageFile(uid, container string, attempt int32) (string, error)
	Message(uid, container string, attempt int32) string
	Teardown(ctx context.Context, uid string) error
	Pods() []string
	// Uses measures what the pod's volumes take, by name.
	Uses(ctx context.Context, pod *corev1.Pod) map[string]volume.Use
}

// Cgroups makes pods' control groups; [cgroup.Manager], or nothing on hollow nodes.
type Cgroups interface {
	Setup(uid string, r podspec.PodResources) (parent string, err error)
	// Raise raises the limits that are lower than r's.
	Raise(uid string, r podspec.PodResources) error
	Remove(uid string) error
	Pods() []string
	V2() bool
	// PodUsage and MachineUsage return what the processes of a pod, and all of the machine, use.
	PodUsage(uid string) (cgroup.Usage, error)
	MachineUsage() (cgroup.Usage, error)
	// Details are what monitoring shows of a container, or of the pod itself where container is "".
	Details(uid, container string) (cgroup.Details, error)
	// Processes are those of one container of a pod.
	Processes(uid, container string) ([]int, error)
}

// Devices gets the devices of pods' claims ready; [devices.Manager], or nothing on hollow nodes.
type Devices interface {
	// Prepare gets the claims of a pod ready, Unprepare gives them back. Both may be called again.
	Prepare(ctx context.Context, pod *corev1.Pod) error
	Unprepare(ctx context.Context, pod types.UID) error
	// Pods are those for which claims are ready, or were getting so.
	Pods() []types.UID
	// For returns the CDI ids of the devices that a container gets.
	For(pod *corev1.Pod, c *corev1.Container) []string
}

// Prober runs probes; [probe.Prober], or one that always succeeds on hollow nodes.
type Prober interface {
	Run(ctx context.Context, p *corev1.Probe, t probe.Target) (outcome probe.Outcome, output string)
	Get(ctx context.Context, a *corev1.HTTPGetAction, timeout time.Duration, t probe.Target) (code int, body string, err error)
}
