package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// stageDriver makes this program a CSI driver, which runs in a pod and keeps its volumes in a directory there.
const (
	stageDriver = "csi-driver"
	csiName     = "csi.e2e.knarr.io"
	kubeletDir  = "/var/lib/kubelet"
)

// diskDriver has directories as volumes. It notes what it does, one line each, where the test can read it.
type diskDriver struct {
	spec.UnimplementedIdentityServer
	spec.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	home string // its directory, below kubeletDir/plugins
}

// runDriver serves until the pod ends.
func runDriver() error {
	d := &diskDriver{home: filepath.Join(kubeletDir, "plugins", csiName)}
	if err := os.MkdirAll(filepath.Join(d.home, "disks"), 0o755); err != nil {
		return err
	}
	failed := make(chan error, 2)
	for _, path := range []string{filepath.Join(d.home, "csi.sock"), filepath.Join(kubeletDir, "plugins_registry", csiName+"-reg.sock")} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of one that was killed
			return err
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		s := grpc.NewServer()
		spec.RegisterIdentityServer(s, d)
		spec.RegisterNodeServer(s, d)
		registration.RegisterRegistrationServer(s, d)
		go func() { failed <- s.Serve(l) }()
	}
	return <-failed
}

func (d *diskDriver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: csiName, Endpoint: filepath.Join(d.home, "csi.sock"), SupportedVersions: []string{"1.0.0"}}, nil
}

func (d *diskDriver) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *diskDriver) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: "here", MaxVolumesPerNode: 100, AccessibleTopology: &spec.Topology{Segments: map[string]string{"topology." + csiName + "/rack": "r1"}}}, nil
}

func (d *diskDriver) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	return &spec.NodeGetCapabilitiesResponse{Capabilities: []*spec.NodeServiceCapability{{Type: &spec.NodeServiceCapability_Rpc{
		Rpc: &spec.NodeServiceCapability_RPC{Type: spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}}}}}, nil
}

func (d *diskDriver) note(format string, args ...any) error {
	f, err := os.OpenFile(filepath.Join(d.home, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, format+"\n", args...)
	return errors.Join(err, f.Close())
}

// NodeStageVolume mounts the volume's directory where it is staged, which the agent sees.
func (d *diskDriver) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	disk := filepath.Join(d.home, "disks", r.VolumeId)
	if err := os.MkdirAll(disk, 0o777); err != nil {
		return nil, err
	}
	if err := d.note("stage %s %s", r.VolumeId, r.PublishContext["slot"]); err != nil {
		return nil, err
	}
	return &spec.NodeStageVolumeResponse{}, bindOnce(disk, r.StagingTargetPath)
}

func (d *diskDriver) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	from := r.StagingTargetPath
	if from == "" { // an inline volume
		from = filepath.Join(d.home, "disks", r.VolumeId)
		if err := os.MkdirAll(from, 0o777); err != nil {
			return nil, err
		}
		text := r.VolumeContext["say"] + " " + r.VolumeContext["csi.storage.k8s.io/pod.name"] + " " + r.VolumeContext["csi.storage.k8s.io/ephemeral"]
		if err := os.WriteFile(filepath.Join(from, "said"), []byte(text), 0o644); err != nil {
			return nil, err
		}
	} else if !mounted(from) {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged at %s", r.VolumeId, from)
	}
	if err := errors.Join(d.note("publish %s", r.VolumeId), os.MkdirAll(r.TargetPath, 0o750)); err != nil {
		return nil, err
	}
	return &spec.NodePublishVolumeResponse{}, bindOnce(from, r.TargetPath)
}

func (d *diskDriver) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	if err := errors.Join(d.note("unpublish %s", r.VolumeId), unbind(r.TargetPath)); err != nil {
		return nil, err
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

func (d *diskDriver) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	return &spec.NodeUnstageVolumeResponse{}, errors.Join(d.note("unstage %s", r.VolumeId), unbind(r.StagingTargetPath))
}

// mounted reports whether something is mounted at a path, as this process sees it.
func mounted(path string) bool {
	info, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && strings.Contains(string(info), " "+path+" ")
}

func bindOnce(from, to string) error {
	if mounted(to) {
		return nil
	}
	return unix.Mount(from, to, "", unix.MS_BIND, "")
}

func unbind(path string) error {
	if !mounted(path) {
		return nil
	}
	return unix.Unmount(path, 0)
}
