package report

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Settings are what a node's report is made from.
type Settings struct {
	Name    string
	Client  client.Client
	Runtime runtime.Runtime
	Events  *events.Recorder
	Tasks   *task.Group
	Log     *slog.Logger

	IPs, PodCIDRs         []string
	Capacity, Allocatable corev1.ResourceList
	Labels                map[string]string
	Taints                []corev1.Taint
	// Annotations are set when the node is registered.
	Annotations map[string]string
	Version     string
	// KubeletPort is where tools reach the agent as a kubelet; 0: nowhere.
	KubeletPort int
	// DataDir is the directory whose disk counts.
	DataDir string
	// Hollow nodes have no machine that could be measured.
	Hollow bool

	// Interval is how often lease and conditions are looked after, StatusInterval how often an unchanged status is written.
	Interval, StatusInterval time.Duration
	// Deleted, if set, is called once when the node's object has been deleted, for good.
	Deleted func()
	// InUse returns the volumes that have to stay attached; nil for none.
	InUse func() []corev1.UniqueVolumeName
	// Tend is called with each heartbeat.
	Tend func(ctx context.Context, now time.Time)
}

// Node keeps the Node object and its lease in the API up to date.
type Node struct {
	Settings

	mu       sync.Mutex
	node     *corev1.Node // as last read or written
	deleted  bool         // for good
	pressure lifecycle.Held
}

// NewNode returns the report of a node; [Node.Beat] makes it.
func NewNode(s Settings) *Node { return &Node{Settings: s} }

// Node implements pod.Self.
func (n *Node) Node() *corev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.node
}

// ReadNode implements pod.Self: the labels may have changed since the node was registered, and the scheduler goes by the newest.
func (n *Node) ReadNode(ctx context.Context) {
	node, err := client.Get[*corev1.Node](ctx, n.Client, api.Key{Name: n.Name})
	if err != nil {
		n.Log.Debug("reading this node's labels", "err", err) // what is known of them has to do
		return
	}
	n.setNode(node)
}

// Shortage implements pod.Self.
func (n *Node) Shortage() lifecycle.Shortage {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pressure.Shortage
}

// NetworkProblem implements pod.Self.
func (n *Node) NetworkProblem(ctx context.Context) string { return n.checkRuntime(ctx).network }

// Write writes the node's status now, if it has changed.
func (n *Node) Write(ctx context.Context) error {
	if !n.registered() {
		return nil
	}
	_, err := n.writeStatus(ctx, false)
	return err
}

// isDeleted reports whether the node's object was deleted, for good.
func (n *Node) isDeleted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.deleted
}

// isReady reports whether the node's Ready condition was true when it was last written.
func (n *Node) isReady() bool {
	node := n.Node()
	return node != nil && readyStatus(node.Status.Conditions) == string(corev1.ConditionTrue)
}

// registered reports whether the node has an object.
func (n *Node) registered() bool { return n.Node() != nil }

// warn logs an error of something that is tried again another time.
func (n *Node) warn(what string, err error, args ...any) {
	if err != nil {
		n.Log.Warn(what+" failed", append(args, "err", err)...)
	}
}
