package runtimetest

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"slices"
	"time"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

func exec(f *fixture) {
	_, _, id := f.start(Forever)
	r, err := f.Runtime.ExecSync(f.ctx, id, []string{"/bin/true"}, 10*time.Second)
	f.must(err)
	if r.ExitCode != 0 {
		f.Errorf("true: %+v", r)
	}
	r, err = f.Runtime.ExecSync(f.ctx, id, []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}, 10*time.Second)
	f.must(err)
	if r.ExitCode != 3 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
		f.Errorf("exit 3: %+v", r)
	}
	if _, err = f.Runtime.ExecSync(f.ctx, id, []string{"/bin/sleep", "30"}, time.Second); !runtime.IsDeadlineExceeded(err) {
		f.Errorf("a command that takes too long: %v", err)
	}
	f.must(f.Runtime.ReopenContainerLog(f.ctx, id))
	f.must(f.Runtime.StopContainer(f.ctx, id, time.Second))
	if _, err = f.Runtime.ExecSync(f.ctx, id, []string{"/bin/true"}, time.Second); err == nil {
		f.Error("a command ran in a container that does not")
	}
}

func images(f *fixture) {
	none := &cri.ImageSpec{Image: "docker.io/knarr/none:1"}
	if i, err := f.Runtime.ImageStatus(f.ctx, none); err != nil || i != nil {
		f.Errorf("status of no image: %v, %v", i, err)
	}
	f.must(f.Runtime.RemoveImage(f.ctx, none))
	i, err := f.Runtime.ImageStatus(f.ctx, &cri.ImageSpec{Image: f.Image})
	f.must(err)
	if i.GetId() == "" || i.GetSize() == 0 || !slices.Contains(i.GetRepoTags(), f.Image) {
		f.Errorf("status of %s: %v", f.Image, i)
	}
	if byID, err := f.Runtime.ImageStatus(f.ctx, &cri.ImageSpec{Image: i.GetId()}); err != nil || byID.GetId() != i.GetId() {
		f.Errorf("status of %s: %v, %v", i.GetId(), byID, err)
	}
	all, err := f.Runtime.ListImages(f.ctx, nil)
	f.must(err)
	if !slices.ContainsFunc(all, func(o *cri.Image) bool { return o.Id == i.GetId() }) {
		f.Errorf("%s is not in the list: %v", f.Image, all)
	}
	fs, err := f.Runtime.ImageFsInfo(f.ctx)
	f.must(err)
	if len(fs.ImageFilesystems) == 0 || fs.ImageFilesystems[0].GetFsId().GetMountpoint() == "" {
		f.Errorf("file systems: %v", fs)
	}
}

func stats(f *fixture) {
	_, sandbox, id := f.start(Forever)
	s, err := f.Runtime.ContainerStats(f.ctx, id)
	f.must(err)
	if s.GetAttributes().GetId() != id || s.GetCpu().GetUsageCoreNanoSeconds() == nil || s.GetMemory().GetWorkingSetBytes().GetValue() == 0 {
		f.Errorf("statistics: %v", s)
	}
	list, err := f.Runtime.ListContainerStats(f.ctx, &cri.ContainerStatsFilter{PodSandboxId: sandbox})
	f.must(err)
	if len(list) != 1 || list[0].GetAttributes().GetId() != id {
		f.Errorf("list: %v", list)
	}
	p, err := f.Runtime.PodSandboxStats(f.ctx, sandbox)
	f.must(err)
	if p.GetAttributes().GetId() != sandbox || len(p.GetLinux().GetContainers()) != 1 {
		f.Errorf("sandbox's statistics: %v", p)
	}
}

func resources(f *fixture) {
	_, _, id := f.start(Forever)
	f.must(f.Runtime.UpdateContainerResources(f.ctx, id, &cri.LinuxContainerResources{CpuShares: 512, MemoryLimitInBytes: 64 << 20}))
	s := f.state(id, cri.ContainerState_CONTAINER_RUNNING)
	if r := s.GetResources().GetLinux(); r.GetCpuShares() != 512 || r.GetMemoryLimitInBytes() != 64<<20 {
		f.Errorf("resources: %v", r)
	}
	if err := f.Runtime.UpdateContainerResources(f.ctx, "none", &cri.LinuxContainerResources{}); !runtime.IsNotFound(err) {
		f.Errorf("no container: %v", err)
	}
}
