package endpoint

import (
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// groups reads what /metrics/cadvisor shows beyond a summary, to which it adds the node's file system. It reads some ten files for each
// container, so only who asks for it pays for it.
func (e *Endpoint) groups(summary kubelet.Summary, now time.Time) (kubelet.Summary, map[string]stats.Groups, stats.Machine) {
	m := stats.Machine{Cores: amount.Units(*e.Capacity.Cpu()), Memory: amount.Units(*e.Capacity.Memory())}
	if e.Hollow {
		return summary, nil, m
	}
	devices := machine.Devices()
	summary.Node.Fs = machine.FileSystem(e.DataDir, metav1.NewTime(now))
	m.Disk = devices[machine.DeviceOf(e.DataDir)]
	groups := map[string]stats.Groups{}
	for i := range summary.Pods {
		uid := summary.Pods[i].PodRef.UID
		if w := e.Pods.Get(types.UID(uid)); w != nil {
			groups[uid] = e.podGroups(w, devices)
		}
	}
	return summary, groups, m
}

// podGroups reads the control groups of one pod. What is gone by now is left out.
func (e *Endpoint) podGroups(w *pod.Worker, devices map[string]string) stats.Groups {
	uid := string(w.UID())
	read := func(name, image string) stats.Group {
		d, err := e.Cgroups.Details(uid, name)
		if err != nil {
			return stats.Group{Name: name, Image: image}
		}
		for i, disk := range d.Disks {
			if device := devices[disk.Device]; device != "" {
				d.Disks[i].Device = device
			}
		}
		return stats.Group{Details: d, Name: name, Image: image}
	}
	obs := w.Seen()
	g := stats.Groups{Pod: read("", ""), Containers: map[string]stats.Group{}}
	if sb := obs.Sandbox(); sb != nil {
		g.Sandbox = read(sb.ID, e.PauseImage)
		g.Interfaces = e.interfaces(uid, sb.ID)
	}
	for i := len(obs.Containers) - 1; i >= 0; i-- { // the newest come first
		c := &obs.Containers[i]
		g.Containers[c.Name] = read(c.ID, c.Image)
	}
	return g
}

// interfaces counts the packets of a pod, in whose network a process of the sandbox is.
func (e *Endpoint) interfaces(uid, sandbox string) []stats.Interface {
	pids, err := e.Cgroups.Processes(uid, sandbox)
	if err != nil || len(pids) == 0 {
		return nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", pids[0]))
	if err != nil {
		return nil
	}
	defer f.Close()
	return stats.ReadInterfaces(f)
}
