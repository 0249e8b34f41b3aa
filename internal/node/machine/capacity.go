package machine

import (
	"fmt"
	"os"
	goruntime "runtime"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// DefaultReserved is what pods cannot have of a machine for which nothing else is said.
func DefaultReserved() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")}
}

// Measure adds to capacity what the machine has, where that is not given, with the disk of dir, which is made.
func Measure(capacity corev1.ResourceList, dir string) error {
	mem, err := memInfo("MemTotal")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("measuring the disk of %s: %w", dir, err)
	}
	Default(capacity, corev1.ResourceCPU, *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI))
	Default(capacity, corev1.ResourceMemory, *resource.NewQuantity(mem, resource.BinarySI))
	Default(capacity, corev1.ResourceEphemeralStorage, *resource.NewQuantity(int64(fs.Blocks)*fs.Bsize, resource.BinarySI))
	return nil
}

// Default sets a resource that the list does not have.
func Default(l corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if _, given := l[name]; !given {
		l[name] = q
	}
}

// Allocatable returns what is left of capacity for pods. Reserving more than there is, is a mistake.
func Allocatable(capacity, reserved corev1.ResourceList) (corev1.ResourceList, error) {
	out := capacity.DeepCopy()
	for name, q := range reserved {
		have, ok := out[name]
		if !ok {
			continue
		}
		have.Sub(q)
		if have.Sign() < 0 {
			return nil, fmt.Errorf("reserved %s (%s) is more than the machine has", name, q.String())
		}
		out[name] = have
	}
	return out, nil
}
