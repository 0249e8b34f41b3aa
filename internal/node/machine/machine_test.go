package machine

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMeasureKeepsWhatIsGiven(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	given := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3")}
	if err := Measure(given, dir); err != nil {
		t.Fatal(err)
	}
	if given.Cpu().Value() != 3 || given.Memory().Value() < 1<<20 || given.StorageEphemeral().Value() < 1<<20 {
		t.Errorf("%v", given)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error("the directory whose disk was measured is not there")
	}
}

func TestAllocatableIsWhatIsNotReserved(t *testing.T) {
	capacity := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	got, err := Allocatable(capacity, DefaultReserved())
	if err != nil || got.Cpu().MilliValue() != 1900 || got.Memory().Value() != 768<<20 {
		t.Errorf("%v, %v", got, err)
	}
	if capacity.Cpu().Value() != 2 {
		t.Error("the capacity was changed")
	}
	if _, err := Allocatable(capacity, corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}); err == nil || !strings.Contains(err.Error(), "reserved memory (2Gi)") {
		t.Errorf("more than there is was reserved: %v", err)
	}
	if _, err := Allocatable(capacity, corev1.ResourceList{"hugepages-2Mi": resource.MustParse("2Gi")}); err != nil {
		t.Errorf("what the machine lacks need not be reserved: %v", err)
	}
}

func TestWhatCannotBeReadIsLeftOut(t *testing.T) {
	if fs := FileSystem("/no/such/directory", metav1.Now()); fs != nil {
		t.Errorf("%+v", fs)
	}
	if fs := FileSystem("", metav1.Now()); fs != nil {
		t.Errorf("%+v", fs)
	}
	if _, err := DiskUsedPercent("/no/such/directory"); err == nil {
		t.Error("the disk of nothing has a use")
	}
	if dir := UpperDir(-1); dir != "" {
		t.Errorf("no process has %q", dir)
	}
	if _, err := memInfo("NoSuchFigure"); err == nil {
		t.Error("a figure that the kernel does not have was read")
	}
	if s := readLine("/no/such/file"); s != "" {
		t.Errorf("%q", s)
	}
}

func TestFiguresOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	r := Rooms(dir, 1<<40)
	if r.Memory.Left == 0 || r.Memory.Total != 1<<40 || r.Disk.Left > r.Disk.Total || r.Disk.Total == 0 || r.Processes.Left == 0 || r.Processes.Left > r.Processes.Total {
		t.Errorf("%+v", r)
	}
	if p, err := DiskUsedPercent(dir); err != nil || p < 0 || p > 100 {
		t.Errorf("%d %%, %v", p, err)
	}
	fs := FileSystem(dir, metav1.Now())
	if fs == nil || *fs.CapacityBytes < *fs.UsedBytes {
		t.Errorf("%+v", fs)
	}
	if boot := BootTime(); boot.IsZero() || boot.After(time.Now()) {
		t.Errorf("booted at %v", boot)
	}
	var info corev1.NodeSystemInfo
	Identify(&info)
	if info.KernelVersion == "" || info.OSImage == "" || info.BootID == "" {
		t.Errorf("%+v", info)
	}
	if n := Network(time.Now()); n == nil {
		t.Error("no network figures")
	}
}

func TestUpperDirOfAnOverlay(t *testing.T) {
	const other = "22 1 0:20 / /proc rw - proc proc rw\n"
	const overlay = "37 1 0:31 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/l/1:/l/2,upperdir=/u/7/fs,workdir=/u/7/work\n"
	for mounts, want := range map[string]string{
		"":              "",
		other:           "",
		other + overlay: "/u/7/fs",
		"37 1 0:31 / /data rw - overlay overlay rw,upperdir=/u/8\n": "", // a volume's
		"37 1 8:1 / / rw - ext4 /dev/sda1 rw\n":                     "",
		"broken":                                                    "",
	} {
		if got := upperDir(bufio.NewScanner(strings.NewReader(mounts))); got != want {
			t.Errorf("%q: %q, want %q", mounts, got, want)
		}
	}
}

func TestDevicesHaveNames(t *testing.T) {
	got := devices("major minor  #blocks  name\n\n   8        0  209715200 sda\n 259        1    1048576 nvme0n1p1\n")
	if len(got) != 2 || got["8:0"] != "/dev/sda" || got["259:1"] != "/dev/nvme0n1p1" {
		t.Errorf("%v", got)
	}
	if DeviceOf(t.TempDir()) == "" || DeviceOf("/no/such/directory") != "" {
		t.Error("a directory is on a device, and one that is not there is on none")
	}
}
