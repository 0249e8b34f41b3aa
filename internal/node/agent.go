package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/csi"
	"github.com/knarr-io/knarr/internal/node/diskuse"
	"github.com/knarr-io/knarr/internal/node/endpoint"
	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/images"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/persistent"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/report"
	"github.com/knarr-io/knarr/internal/node/sources"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/upkeep"
)

// Agent runs the pods of one node. Its rooms are wired up by New; the agent itself follows the API's pods and the runtime's events.
type Agent struct {
	*endpoint.Endpoint // what the API server asks of the node

	cfg    Config
	log    *slog.Logger
	tasks  task.Group // every goroutine but Run's own
	pods   *pod.Set
	report *report.Node
	// upkeep is called with each heartbeat.
	upkeep *upkeep.Keeper
	host   *pod.Host
	// drivers are those that have registered, of devices and of volumes; nil on hollow nodes.
	drivers *drivers
	// local removes the node's local volumes; nil on hollow nodes.
	local *local.Keeper
}

// New returns an agent; [Agent.Run] runs it.
func New(cfg Config) (*Agent, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: cfg.Logger.With("component", "node", "node", cfg.NodeName)}
	facts, err := cfg.facts()
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	cgroups, err := cfg.cgroups()
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	var ready pod.Devices = noDevices{}
	var attach *csi.Manager
	if !cfg.Hollow {
		a.drivers, err = newDrivers(&cfg, a.log, func() { a.pods.DriverArrived() }, func(ctx context.Context) error { return a.report.Write(ctx) })
		if err != nil {
			return nil, fmt.Errorf("node: %w", err)
		}
		ready, attach = a.drivers.devices, a.drivers.volumes
	}
	rec := events.New(events.Settings{Client: cfg.Client, Tasks: &a.tasks, Node: cfg.NodeName, Quiet: cfg.Hollow})
	var claims *persistent.Mounter
	a.report = report.NewNode(report.Settings{
		Name: cfg.NodeName, Client: cfg.Client, Runtime: cfg.Runtime, Events: rec, Tasks: &a.tasks, Log: a.log,
		IPs: cfg.NodeIPs, PodCIDRs: cfg.PodCIDRs, Capacity: facts.Capacity, Allocatable: facts.Allocatable,
		Labels: cfg.Labels, Taints: cfg.Taints, Annotations: cfg.annotations(), Version: cfg.Version, DataDir: cfg.DataDir, Hollow: cfg.Hollow, KubeletPort: cfg.KubeletPort,
		Interval: cfg.HeartbeatInterval, StatusInterval: cfg.StatusInterval, Deleted: cfg.Deleted,
		InUse: func() []corev1.UniqueVolumeName { return claims.InUse() },
		Tend:  func(ctx context.Context, now time.Time) { a.upkeep.Tend(ctx, now) },
	})
	src := sources.New(sources.Settings{Client: cfg.Client, Tasks: &a.tasks, Tokens: cfg.Tokens, Log: a.log, Hollow: cfg.Hollow, Node: cfg.NodeName, Events: rec})
	var volumes pod.Volumes
	volumes, claims = cfg.volumes(a.report.Node, attach)
	var claimed *endpoint.Claims
	if claims != nil {
		a.local = &local.Keeper{Store: claims.Local, Client: cfg.Client, Node: cfg.NodeName, Events: rec, Log: a.log, Used: claims.Uses}
		claimed = &endpoint.Claims{Mounter: claims, Keeper: a.local}
	}
	a.host = &pod.Host{
		Node: *facts, Client: cfg.Client, Runtime: cfg.Runtime, Volumes: volumes, Cgroups: cgroups, Devices: ready, Prober: cfg.prober(), Probes: probe.NewMetrics(),
		Ledger: ledger.New(facts.Allocatable, &a.tasks), Sources: src, Events: rec, Tasks: &a.tasks, Log: a.log,
		Images:   images.New(images.Settings{Runtime: cfg.Runtime, Events: rec, Secrets: src, Log: a.log}),
		Statuses: report.NewStatuses(cfg.Client, &a.tasks, a.log), Self: a.report,
	}
	a.pods = pod.NewSet(a.host)
	disks := &diskuse.Meter{Volumes: a.host.Volumes, Cgroups: cgroups}
	a.upkeep = upkeep.New(upkeep.Settings{
		Pods: a.pods, Client: cfg.Client, Runtime: cfg.Runtime, Cgroups: cgroups, Images: a.host.Images, Disks: disks, Tasks: &a.tasks, Log: a.log,
		DataDir: cfg.DataDir, Rooms: cfg.rooms(facts), MaxLogSize: cfg.MaxLogSize, MaxLogFiles: cfg.MaxLogFiles,
		ImageGCHigh: cfg.ImageGCHigh, ImageGCLow: cfg.ImageGCLow, Hollow: cfg.Hollow,
	})
	a.Endpoint = endpoint.New(endpoint.Settings{
		Node: cfg.NodeName, Version: cfg.Version, Pods: a.pods, Runtime: cfg.Runtime, Cgroups: cgroups, Disks: disks, Claims: claimed, Capacity: facts.Capacity,
		DataDir: cfg.DataDir, PauseImage: cfg.PauseImage, Hollow: cfg.Hollow, Config: cfg.kubelet(), StreamCertificate: cfg.StreamCertificate,
		Metrics: cfg.Metrics, Probes: a.host.Probes,
	})
	return a, nil
}

// Run runs the agent until ctx is cancelled, and returns nil then. The containers keep running.
func (a *Agent) Run(ctx context.Context) error {
	a.tasks.Open(ctx)
	may := a.host.Node.Allocatable
	a.log.Info("node agent starting", "maxPods", a.cfg.MaxPods, "cpu", may.Cpu().String(), "memory", may.Memory().String())
	a.tasks.Go(func() { a.report.Beat(ctx) })
	a.tasks.Go(func() { a.watchRuntime(ctx) })
	a.tasks.Go(func() { a.watchPods(ctx) })
	if !a.cfg.Hollow {
		a.tasks.Go(func() { a.RecordDemand(ctx) })
	}
	if a.local != nil {
		a.tasks.Go(func() { a.local.Run(ctx) })
	}
	if a.drivers != nil {
		a.tasks.Go(func() {
			if err := a.drivers.run(ctx); err != nil {
				a.log.Error("no driver can register", "err", err)
			}
		})
	}
	<-ctx.Done()
	a.tasks.Close()
	a.pods.Close()
	if a.cfg.Linked {
		a.report.Leave(ctx) // before what takes long to end
	}
	a.tasks.Wait()
	return nil
}

// Hasten makes the node heard of by way of another server each time lost says that the connection with one was lost or is back.
func (a *Agent) Hasten(ctx context.Context, lost <-chan struct{}) { a.report.Hasten(ctx, lost) }

// LinkLost says that somebody deleted the network link of a sandbox, and why it could not be made anew, if so: the pod then gets a new sandbox.
func (a *Agent) LinkLost(ctx context.Context, sandbox string, failure error) {
	a.pods.LinkLost(ctx, sandbox, failure)
}

// rooms measures what is left of the machine that has these facts.
func (c *Config) rooms(n *pod.Node) func() lifecycle.Rooms {
	return func() lifecycle.Rooms { return machine.Rooms(c.DataDir, amount.Units(*n.Capacity.Memory())) }
}

// facts returns what does not change about the node.
func (c *Config) facts() (*pod.Node, error) {
	n := &pod.Node{IPs: c.NodeIPs, Hollow: c.Hollow, LogDir: filepath.Join(c.DataDir, "pods-logs"), SeccompDir: filepath.Join(c.DataDir, "seccomp"),
		Capacity: c.Capacity.DeepCopy(), DNS: podspec.DNS{ClusterDNS: c.ClusterDNS, ClusterDomain: c.ClusterDomain}}
	if n.Capacity == nil {
		n.Capacity = corev1.ResourceList{}
	}
	reserved := c.Reserved
	if !c.Hollow {
		n.PodDir = c.podDir()
		if err := machine.Measure(n.Capacity, c.DataDir); err != nil {
			return nil, err
		}
		if reserved == nil {
			reserved = machine.DefaultReserved()
		}
		if f, err := os.Open(c.ResolvConf); err == nil {
			n.DNS.Host, err = podspec.ParseResolvConf(f)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", c.ResolvConf, err)
			}
		}
	}
	machine.Default(n.Capacity, corev1.ResourcePods, *resource.NewQuantity(int64(c.MaxPods), resource.DecimalSI))
	var err error
	n.Allocatable, err = machine.Allocatable(n.Capacity, reserved)
	return n, err
}
