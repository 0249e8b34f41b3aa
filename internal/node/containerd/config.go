package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/containerd/containerd/v2/version"
	"golang.org/x/sys/unix"
)

// machine is what the configuration depends on besides Options.
type machine struct {
	// mayLowerOOMScore reports whether the process has CAP_SYS_RESOURCE.
	mayLowerOOMScore bool
}

// configTemplate is containerd's configuration, version 4 (containerd's docs/cri/config.md). Everything that has a
// default outside the data directory is named.
var configTemplate = template.Must(template.New("config.toml").Funcs(template.FuncMap{
	"q": quote, "list": quoteList,
}).Parse(`# Written by Knarr at every start; changes are lost. For {{.ContainerdVersion}}.
version = 4
root = {{q .Root}}
state = {{q .State}}
oom_score = {{.OOMScore}}

[debug]
  level = {{q .LogLevel}}

[plugins."io.containerd.server.v1.grpc"]
  address = {{q .Endpoint}}

[plugins."io.containerd.server.v1.ttrpc"]
  address = {{printf "%s.ttrpc" .Endpoint | q}}

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = {{q .ShimSockets}}

[plugins."io.containerd.nri.v1.nri"]
  disable = true

# Files of removed containers are deleted within seconds. By default a collection waits fifty times as long as the last ones took, which
# is a minute on a busy machine.
[plugins."io.containerd.gc.v1.scheduler"]
  deletion_threshold = 1
  schedule_delay = "5s"

[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  stream_server_address = {{q .StreamAddress}}
  stream_server_port = "0"
  stream_idle_timeout = "4h"
  enable_tls_streaming = true
  [plugins."io.containerd.grpc.v1.cri".x509_key_pair_streaming]
    # One file with both, so that a crash cannot leave a key of one with the certificate of another.
    tls_cert_file = {{q .StreamCertificate}}
    tls_key_file = {{q .StreamCertificate}}

[plugins."io.containerd.cri.v1.images"]
  snapshotter = {{q .Snapshotter}}
  # How often the sizes of snapshots are added up for ImageFsInfo, in seconds. The default, 10, keeps an idle node busy.
  stats_collect_period = 300
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {{q .PauseImage}}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {{q .RegistryDir}}

[plugins."io.containerd.cri.v1.runtime"]
  max_container_log_line_size = {{.MaxLogLine}}
  restrict_oom_score_adj = {{not .MayLowerOOMScore}}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  # Where drivers of devices say what a container needs to use one (CDI).
  cdi_spec_dirs = ["/etc/cdi", "/var/run/cdi"]
  enable_criu = false
  # Knarr's own commands do not come here (internal/node/command); others' that leave something behind must not hang for ever.
  drain_exec_sync_io_timeout = "5s"
  # The default asks every shim once a second. The agent works out rates from the counters when somebody wants them.
  stats_collect_period = "10m"
  stats_retention_period = "1h"
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = {{list .CNIBinDirs}}
    conf_dir = {{q .CNIConfDir}}
    max_conf_num = 1
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = {{q .Shim}}
      sandboxer = "podsandbox"
      snapshotter = {{q .Snapshotter}}
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = {{q .Runc}}
        Root = {{q .RuncRoot}}
        SystemdCgroup = false
`))

// config renders the configuration file.
func config(o *Options, m machine) (string, error) {
	oomScore := 0
	if m.mayLowerOOMScore {
		oomScore = -999 // as the kubelet and containerd's unit file have it: the last to go
	}
	var b strings.Builder
	err := configTemplate.Execute(&b, map[string]any{
		"ContainerdVersion": "containerd " + version.Version,
		"Root":              filepath.Join(o.Dir(), "root"),
		"State":             filepath.Join(o.Dir(), "state"),
		"OOMScore":          oomScore,
		"LogLevel":          o.LogLevel,
		"Endpoint":          o.Endpoint(),
		"ShimSockets":       o.ShimSockets(),
		"StreamAddress":     streamAddress,
		"StreamCertificate": o.streamCertificateFile(),
		"Snapshotter":       o.Snapshotter,
		"PauseImage":        PauseImage,
		"RegistryDir":       o.RegistryDir,
		"MaxLogLine":        o.MaxLogLine,
		"MayLowerOOMScore":  m.mayLowerOOMScore,
		"CNIBinDirs":        o.CNIBinDirs,
		"CNIConfDir":        o.CNIConfDir,
		"Shim":              filepath.Join(o.BinDir, "containerd-shim-runc-v2"),
		"Runc":              filepath.Join(o.BinDir, "runc"),
		"RuncRoot":          runcRoot(o.DataDir),
	})
	return b.String(), err
}

// quote writes a TOML basic string. Its escapes are Go's, but for \x and \a and such, which stand for bytes that a path
// should not have.
func quote(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '�' }) {
		return "", fmt.Errorf("%q has control characters or is not UTF-8", s)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`, nil
}

func quoteList(list []string) (string, error) {
	quoted := make([]string, len(list))
	for i, s := range list {
		var err error
		if quoted[i], err = quote(s); err != nil {
			return "", err
		}
	}
	return "[" + strings.Join(quoted, ", ") + "]", nil
}

// runcRoot is where runc keeps its containers' state.
func runcRoot(dataDir string) string { return filepath.Join(dataDir, "containerd", "runc") }

// maxShimSockets is how long the directory may be (containerd's own limit): a socket's name in it is a hash of 64 digits.
const maxShimSockets = 42

func shimSockets(dataDir string) string {
	dir := filepath.Join(dataDir, "containerd", "s")
	if len(dir) <= maxShimSockets {
		return dir
	}
	sum := sha256.Sum256([]byte(filepath.Clean(dataDir)))
	return "/run/knarr-shims/" + hex.EncodeToString(sum[:8])
}

// observeMachine looks at what the configuration depends on.
func observeMachine() (machine, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return machine{}, fmt.Errorf("read capabilities: %w", err)
	}
	return machine{mayLowerOOMScore: caps[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0}, nil
}

// overlayWorks tries to mount an overlay in dir: network file systems and some container file systems refuse it.
func overlayWorks(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "overlay-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return err
		}
	}
	merged := filepath.Join(tmp, "merged")
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", tmp, tmp, tmp)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	return unix.Unmount(merged, 0)
}
