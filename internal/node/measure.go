package node

import (
	"bufio"
	"fmt"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// measure finds out what the machine has and what of it pods may use.
func (a *Agent) measure() error {
	a.capacity = a.cfg.Capacity.DeepCopy()
	if a.capacity == nil {
		a.capacity = corev1.ResourceList{}
	}
	if !a.cfg.Hollow {
		mem, err := memInfo("MemTotal")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(a.cfg.DataDir, 0o755); err != nil {
			return err
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(a.cfg.DataDir, &fs); err != nil {
			return fmt.Errorf("measuring the disk of %s: %w", a.cfg.DataDir, err)
		}
		setResource(a.capacity, corev1.ResourceCPU, *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI))
		setResource(a.capacity, corev1.ResourceMemory, *resource.NewQuantity(mem, resource.BinarySI))
		setResource(a.capacity, corev1.ResourceEphemeralStorage, *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI))
	}
	setResource(a.capacity, corev1.ResourcePods, *resource.NewQuantity(int64(a.cfg.MaxPods), resource.DecimalSI))
	reserved := a.cfg.Reserved
	if reserved == nil && !a.cfg.Hollow {
		reserved = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")}
	}
	a.allocatable = a.capacity.DeepCopy()
	for name, q := range reserved {
		if have, ok := a.allocatable[name]; ok {
			have.Sub(q)
			if have.Sign() < 0 {
				return fmt.Errorf("reserved %s (%s) is more than the machine has", name, q.String())
			}
			a.allocatable[name] = have
		}
	}
	return nil
}

func setResource(l corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if _, given := l[name]; !given {
		l[name] = q
	}
}

// memInfo reads one figure of /proc/meminfo (proc(5)), in bytes.
func memInfo(name string) (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no %s", name)
}

// diskUsed returns how full the disk of the data directory is, in percent.
func (a *Agent) diskUsed() (int, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(a.cfg.DataDir, &fs); err != nil {
		return 0, err
	}
	used := fs.Blocks - fs.Bfree
	if used+fs.Bavail == 0 {
		return 0, nil
	}
	return int(used * 100 / (used + fs.Bavail)), nil
}

// pidsLeft returns how many more processes the machine can have, and how many in all.
func pidsLeft() (left, max int64) {
	b, err := os.ReadFile("/proc/loadavg") // "0.1 0.2 0.3 running/total last"
	if err != nil {
		return 1, 1
	}
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return 1, 1
	}
	_, total, _ := strings.Cut(f[3], "/")
	n, _ := strconv.ParseInt(total, 10, 64)
	m, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 1, 1
	}
	max, _ = strconv.ParseInt(strings.TrimSpace(string(m)), 10, 64)
	return max - n, max
}

// bootTime is when the machine started (proc_stat(5)); zero where that is not known.
func bootTime() time.Time {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err == nil {
				return time.Unix(n, 0)
			}
		}
	}
	return time.Time{}
}

func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// osImage returns the name of the distribution (os-release(5)).
func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return goruntime.GOOS
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return goruntime.GOOS
}
