package lifecycle

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func limited(name, storage string) corev1.Container {
	c := corev1.Container{Name: name}
	if storage != "" {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(storage)}
	}
	return c
}

func onDisk(name, limit string) corev1.Volume {
	e := &corev1.EmptyDirVolumeSource{}
	if limit != "" {
		q := resource.MustParse(limit)
		e.SizeLimit = &q
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: e}}
}

func TestOverDisk(t *testing.T) {
	const mi = 1 << 20
	for _, test := range []struct {
		name       string
		volumes    []corev1.Volume
		containers []corev1.Container
		use        DiskUse
		limits     bool
		want       string
	}{
		{"nothing is limited", []corev1.Volume{onDisk("v", "")}, []corev1.Container{limited("a", "")},
			DiskUse{map[string]uint64{"v": 99 * mi}, map[string]uint64{"a": 99 * mi}}, false, ""},
		{"a volume within its limit", []corev1.Volume{onDisk("v", "5Mi")}, nil, DiskUse{map[string]uint64{"v": 5 * mi}, nil}, true, ""},
		{"a volume beyond it", []corev1.Volume{onDisk("v", "5Mi")}, nil, DiskUse{map[string]uint64{"v": 5*mi + 1}, nil}, true,
			`Usage of EmptyDir volume "v" exceeds the limit "5Mi". `},
		{"a volume within a limit beyond 64 bits", []corev1.Volume{onDisk("v", "12E")}, nil, DiskUse{map[string]uint64{"v": 6 * mi}, nil}, true, ""},
		{"a container beyond its limit", nil, []corev1.Container{limited("a", "5Mi"), limited("b", "")}, DiskUse{nil, map[string]uint64{"a": 6 * mi}}, true,
			`Container a exceeded its local ephemeral storage limit "5Mi". `},
		{"another's use does not count", nil, []corev1.Container{limited("a", "5Mi"), limited("b", "")}, DiskUse{nil, map[string]uint64{"b": 6 * mi}}, true, ""},
		{"the pod beyond the sum", []corev1.Volume{onDisk("v", "")}, []corev1.Container{limited("a", "5Mi"), limited("b", "5Mi")},
			DiskUse{map[string]uint64{"v": 8 * mi}, map[string]uint64{"a": 3 * mi}}, true, "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. "},
		{"no sum where one is not limited", []corev1.Volume{onDisk("v", "")}, []corev1.Container{limited("a", "5Mi"), limited("b", "")},
			DiskUse{map[string]uint64{"v": 8 * mi}, nil}, true, ""},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Volumes: test.volumes, Containers: test.containers}}
		if got := OverDisk(pod, test.use); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if got := LimitsDisk(pod); got != test.limits {
			t.Errorf("%s: limited %v", test.name, got)
		}
	}
}

func TestShort(t *testing.T) {
	const gi = 1 << 30
	fine := Rooms{Memory: Room{gi, 8 * gi}, Disk: Room{2 * gi, 10 * gi}, Files: Room{500, 1000}, Processes: Room{900, 1000}}
	for _, test := range []struct {
		name               string
		change             func(*Rooms)
		memory, disk, pids string
	}{
		{"nothing", func(*Rooms) {}, "", "", ""},
		{"memory", func(r *Rooms) { r.Memory.Left = 99 << 20 }, "99 MiB left", "", ""},
		{"disk", func(r *Rooms) { r.Disk.Left = gi - 1 }, "", "1023 MiB of 10240 left", ""},
		{"inodes", func(r *Rooms) { r.Files.Left = 49 }, "", "49 of 1000 inodes left", ""},
		{"processes", func(r *Rooms) { r.Processes.Left = 49 }, "", "", "49 of 1000 left"},
		{"a file system without inodes", func(r *Rooms) { r.Files = Room{} }, "", "", ""},
		{"nothing is known", func(r *Rooms) { *r = Rooms{} }, "", "", ""},
	} {
		r := fine
		test.change(&r)
		s := Short(r)
		for _, c := range [][2]string{{s.Memory, test.memory}, {s.Disk, test.disk}, {s.Processes, test.pids}} {
			if (c[0] == "") != (c[1] == "") || !strings.Contains(c[0], c[1]) {
				t.Errorf("%s: %q, want %q", test.name, c[0], c[1])
			}
		}
	}
}

// A node keeps telling a pressure for five minutes after it was last seen.
func TestPressureIsHeld(t *testing.T) {
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	h := Held{}.Next(Shortage{}, at)
	if h.Disk != "" {
		t.Errorf("from nothing: %q", h.Disk)
	}
	h = h.Next(Shortage{Disk: "full"}, at)
	h = h.Next(Shortage{}, at.Add(299*time.Second))
	if h.Disk != "full" || h.Memory != "" {
		t.Errorf("before five minutes are over: %+v", h.Shortage)
	}
	if h = h.Next(Shortage{}, at.Add(301*time.Second)); h.Disk != "" {
		t.Errorf("after five minutes: %q", h.Disk)
	}
}

func TestVictim(t *testing.T) {
	pod := func(name string, priority int32, use, wanted uint64) Candidate {
		return Candidate{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority}}, Use: use, Wanted: wanted}
	}
	for _, test := range []struct {
		name string
		all  []Candidate
		want string
	}{
		{"nobody", nil, ""},
		{"who exceeds its request, whatever the priority", []Candidate{pod("a", 0, 100, 200), pod("b", 9, 101, 100)}, "b"},
		{"low priority among those", []Candidate{pod("a", 5, 500, 0), pod("b", 1, 50, 0)}, "b"},
		{"the most above its request among equals", []Candidate{pod("a", 0, 300, 200), pod("b", 0, 250, 100)}, "b"},
		{"low priority where nobody exceeds", []Candidate{pod("a", 5, 1, 100), pod("b", 1, 1, 100)}, "b"},
		{"critical pods stay", []Candidate{pod("a", 2_000_000_000, 500, 0)}, ""},
		{"who has nothing cannot help", []Candidate{pod("a", 0, 0, 0)}, ""},
	} {
		got := ""
		if p := Victim(test.all); p != nil {
			got = p.Name
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
