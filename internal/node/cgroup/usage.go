package cgroup

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what the processes of a control group, and of those below it, have used and hold.
type Usage struct {
	CPU uint64 // ns since the group was made
	// Memory is all that is charged, page cache included; WorkingSet is that without the cache that the kernel would drop first, as
	// the kubelet counts it; RSS is anonymous memory. Bytes.
	Memory, WorkingSet, RSS     uint64
	PageFaults, MajorPageFaults uint64
	MemoryLimit                 uint64 // bytes; 0 for none
}

// PodUsage returns the use of a pod's group, of whichever class.
func (m *Manager) PodUsage(uid string) (Usage, error) {
	group, err := m.find(uid)
	if err != nil {
		return Usage{}, err
	}
	return m.usage(group)
}

// MachineUsage returns the use of all that runs on the machine.
func (m *Manager) MachineUsage() (Usage, error) { return m.usage("/") }

// PodsUsage returns the use of all pods together.
func (m *Manager) PodsUsage() (Usage, error) { return m.usage(m.root + "/kubepods") }

// find returns the group of a pod.
func (m *Manager) find(uid string) (string, error) {
	for _, class := range classes() {
		group := m.Path(uid, class)
		if _, err := os.Stat(filepath.Join(m.tree("memory"), group)); err == nil {
			return group, nil
		}
	}
	return "", os.ErrNotExist
}

// Processes returns the IDs of the processes in group, one of those that the runtime made for a container below a pod's.
func (m *Manager) Processes(uid, container string) ([]int, error) {
	group, err := m.find(uid)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(m.tree("memory"), group, container, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			out = append(out, pid)
		}
	}
	return out, nil
}

// tree returns where the groups of a controller are mounted.
func (m *Manager) tree(controller string) string {
	if m.v2 {
		return m.mount
	}
	return filepath.Join(m.mount, controller)
}

func (m *Manager) usage(group string) (Usage, error) {
	if m.v2 {
		return m.usageV2(group)
	}
	var u Usage
	memory := filepath.Join(m.mount, "memory", group)
	cpu, err1 := number(filepath.Join(m.mount, "cpuacct", group, "cpuacct.usage"))
	held, err2 := number(filepath.Join(memory, "memory.usage_in_bytes"))
	stat, err3 := fields(filepath.Join(memory, "memory.stat"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return u, err
	}
	u = Usage{CPU: cpu, Memory: held, WorkingSet: less(held, stat["total_inactive_file"]), RSS: stat["total_rss"],
		PageFaults: stat["total_pgfault"], MajorPageFaults: stat["total_pgmajfault"]}
	u.MemoryLimit = limit(filepath.Join(memory, "memory.limit_in_bytes"))
	return u, nil
}

func (m *Manager) usageV2(group string) (Usage, error) {
	dir := filepath.Join(m.mount, group)
	cpu, err1 := fields(filepath.Join(dir, "cpu.stat"))
	stat, err2 := fields(filepath.Join(dir, "memory.stat"))
	held, err3 := number(filepath.Join(dir, "memory.current"))
	if errors.Is(err3, os.ErrNotExist) && group == "/" { // the machine's own root has none
		info, err := meminfo()
		held, err3 = less(info["MemTotal:"], info["MemFree:"])<<10, err
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return Usage{}, err
	}
	u := Usage{CPU: cpu["usage_usec"] * 1000, Memory: held, WorkingSet: less(held, stat["inactive_file"]), RSS: stat["anon"],
		PageFaults: stat["pgfault"], MajorPageFaults: stat["pgmajfault"]}
	u.MemoryLimit = limit(filepath.Join(dir, "memory.max"))
	return u, nil
}

func less(a, b uint64) uint64 { return a - min(a, b) }

// number reads a file with one number.
func number(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// fields reads a file of lines with a name and a number.
func fields(path string) (map[string]uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]uint64{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		words := strings.Fields(s.Text())
		if len(words) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(words[1], 10, 64); err == nil {
			out[words[0]] = n
		}
	}
	return out, s.Err()
}

// meminfo reads /proc/meminfo (proc(5)), in KiB.
func meminfo() (map[string]uint64, error) { return fields("/proc/meminfo") }
