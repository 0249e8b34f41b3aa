package node

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/csi"
	"github.com/knarr-io/knarr/internal/node/local"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/persistent"
	"github.com/knarr-io/knarr/internal/node/plugins"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/sources"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// TokenRequester asks the API for a token of a service account.
type TokenRequester = sources.TokenRequester

// Config is what an agent needs.
type Config struct {
	NodeName string
	// DataDir holds everything the agent keeps: pods/, pods-logs/, seccomp/. It must be absolute unless Hollow.
	DataDir string
	Client  client.Client
	Runtime runtime.Runtime
	// PauseImage is what the runtime holds pods' namespaces with, as monitoring names it.
	PauseImage string
	// StreamCertificate returns the certificate of Runtime's streaming server; no other is accepted. Without it the server needs one
	// of an authority that this machine trusts, or has to listen on the loopback address.
	StreamCertificate func() *x509.Certificate
	// Metrics has figures of the machine's other parts, for the agent's /metrics to show beside its own; nil means none.
	Metrics prometheus.Gatherer
	Tokens  TokenRequester

	ClusterDNS    []string // addresses for pods' resolv.conf
	ClusterDomain string   // "cluster.local"
	ResolvConf    string   // the node's own; "/etc/resolv.conf"
	NodeIPs       []string // the primary first
	PodCIDRs      []string // given to the runtime and, if the Node has none, written to its spec
	CgroupRoot    string   // "/knarr"
	MaxPods       int      // 250
	// Reserved is what pods cannot have of the machine: cpu, memory, ephemeral-storage. 100m and 256Mi by default.
	Reserved corev1.ResourceList
	// Capacity stands in for the machine's own measures; hollow nodes need it.
	Capacity corev1.ResourceList
	// Labels and Taints are set when the node is registered.
	Labels map[string]string
	Taints []corev1.Taint
	// Version is shown as the node's kubelet version, e.g. "v1.37.2+knarr".
	Version string

	// KubeletPort is where tools reach the agent as a kubelet (package kubelet), for the Node's status; 0: nowhere.
	KubeletPort int

	// Deleted, if set, is called once when the node's object has been deleted. The node is then not registered again, and its lease
	// not renewed; its pods end as their objects do. Without it, the node comes back at once.
	Deleted func()

	// Linked says that the agent keeps connections with servers, by whose loss its node is taken for lost within seconds (ADR 8). It then
	// says when it ends in order, as its containers go on.
	Linked bool

	// Hollow makes the agent leave the machine alone: no volumes, control groups, log files or network probes, and no events but
	// warnings. It is meant for a fake Runtime.
	Hollow bool
	Logger *slog.Logger

	// HeartbeatInterval is how often lease and conditions are looked at; 10 s. StatusInterval is how often an unchanged node status is
	// written; 5 min.
	HeartbeatInterval, StatusInterval time.Duration
	// MaxLogSize is the length in bytes at which a container's log is rotated; 10 MiB. MaxLogFiles are kept; 5.
	MaxLogSize  int64
	MaxLogFiles int
	// ImageGCHigh and ImageGCLow are percentages of disk use between which unused images are removed; 85 and 80.
	ImageGCHigh, ImageGCLow int
}

func (c *Config) defaults() error {
	switch {
	case c.NodeName == "":
		return errors.New("node: NodeName is missing")
	case c.Client == nil || c.Runtime == nil:
		return errors.New("node: Client and Runtime are needed")
	case !c.Hollow && !filepath.IsAbs(c.DataDir):
		return errors.New("node: DataDir must be an absolute path")
	case c.Hollow && c.Capacity == nil:
		return errors.New("node: a hollow node needs Capacity")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&c.ClusterDomain, "cluster.local")
	setDefault(&c.ResolvConf, "/etc/resolv.conf")
	setDefault(&c.CgroupRoot, "/knarr")
	setDefault(&c.Version, "v1.37.2+knarr")
	setDefault(&c.MaxPods, 250)
	setDefault(&c.HeartbeatInterval, 10*time.Second)
	setDefault(&c.StatusInterval, 5*time.Minute)
	setDefault(&c.MaxLogSize, 10<<20)
	setDefault(&c.MaxLogFiles, 5)
	setDefault(&c.ImageGCHigh, 85)
	setDefault(&c.ImageGCLow, 80)
	return nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (c *Config) podDir() string { return filepath.Join(c.DataDir, "pods") }

// volumes returns what makes pods' volumes, with what mounts those of claims; nil on hollow nodes. drivers are those of CSI.
func (c *Config) volumes(node func() *corev1.Node, drivers *csi.Manager) (pod.Volumes, *persistent.Mounter) {
	if c.Hollow {
		return noVolumes{}, nil
	}
	store := &local.Store{Dir: filepath.Join(c.DataDir, "volumes"), Mark: func(ctx context.Context, pv *corev1.PersistentVolume) error {
		_, err := client.Mutate(ctx, c.Client, api.KeyOf(pv), "", func(now *corev1.PersistentVolume) bool {
			return now.UID == pv.UID && localvolume.Mark(now, time.Now())
		})
		return err
	}}
	claims := &persistent.Mounter{Pods: c.podDir(), Local: store, CSI: drivers, Node: node}
	return &volume.Disk{Dir: c.podDir(), Memory: filepath.Join(c.DataDir, "pods-memory"), Claims: claims, Kubelet: plugins.RootOf(c.DataDir)}, claims
}

// hollowVolumes is how many bytes the local volumes of a hollow node may take: as many as anybody asks for.
const hollowVolumes = 1 << 50

// annotations are those of the node: how many bytes its local volumes may take. Of the disk that is what removing unused images does not
// keep free (ImageGCHigh): volumes up to that leave room for images, logs and pods' own files.
func (c *Config) annotations() map[string]string {
	size := uint64(hollowVolumes)
	if !c.Hollow {
		fs := machine.FileSystem(c.DataDir, metav1.Time{})
		if fs == nil {
			return nil
		}
		size = *fs.CapacityBytes / 100 * uint64(c.ImageGCHigh)
	}
	return map[string]string{localvolume.CapacityAnnotation: strconv.FormatUint(size, 10)}
}

func (c *Config) cgroups() (pod.Cgroups, error) {
	if c.Hollow {
		return noCgroups{}, nil
	}
	return cgroup.New("/sys/fs/cgroup", c.CgroupRoot)
}

func (c *Config) prober() pod.Prober {
	if c.Hollow {
		return healthy{}
	}
	return &probe.Prober{Exec: c.Runtime, Version: c.Version}
}

// kubelet returns the settings under the names that a kubelet's configuration has.
func (c *Config) kubelet() map[string]any {
	return map[string]any{
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
		"clusterDNS": c.ClusterDNS, "clusterDomain": c.ClusterDomain, "resolvConf": c.ResolvConf, "maxPods": c.MaxPods,
		"cgroupRoot": c.CgroupRoot, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": true,
		"containerLogMaxSize": strconv.FormatInt(c.MaxLogSize, 10), "containerLogMaxFiles": c.MaxLogFiles,
		"imageGCHighThresholdPercent": c.ImageGCHigh, "imageGCLowThresholdPercent": c.ImageGCLow,
		"nodeStatusUpdateFrequency": c.HeartbeatInterval.String(), "nodeStatusReportFrequency": c.StatusInterval.String(),
		"nodeLeaseDurationSeconds": int(4 * c.HeartbeatInterval / time.Second),
	}
}
