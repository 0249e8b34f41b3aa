// Package cgroup makes and removes the control groups of pods: ROOT/kubepods/[burstable|besteffort]/podUID, below which
// the runtime puts the containers.
//
// What flows through it: a pod's summed requests and limits (podspec.PodResources) become files below /sys/fs/cgroup, in
// version 1 (a tree per controller) or version 2 (one tree). What must stay true: only groups below ROOT are touched; removing
// is idempotent; what is left of pods that are gone is found by listing ([Manager.Pods]). Tests: TestRemoveOnRealGroups,
// TestRootMustNotBeTheMachines.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/podspec"
)

// Manager makes pods' control groups with the cgroupfs driver.
type Manager struct {
	mount string // /sys/fs/cgroup
	root  string // "/knarr"
	v2    bool
	trees []string // v1: directories of the mounted controllers
}

// New finds out which version the machine uses. root is the group below which all pods stand, e.g. "/knarr".
func New(mount, root string) (*Manager, error) {
	root = filepath.Join("/", root)
	if root == "/" {
		return nil, errors.New("cgroup root: must not be the machine's own")
	}
	m := &Manager{mount: mount, root: root}
	if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
		m.v2 = true
		return m, m.setupV2()
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	seen := map[string]bool{}
	for _, e := range entries {
		dir, err := filepath.EvalSymlinks(filepath.Join(mount, e.Name())) // cpu and cpuacct are often one
		if err != nil || seen[dir] {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		seen[dir] = true
		m.trees = append(m.trees, dir)
	}
	if len(m.trees) == 0 {
		return nil, fmt.Errorf("no control groups are mounted at %s", mount)
	}
	for _, qos := range classes() {
		if err := m.mkdir(m.class(qos)); err != nil {
			return nil, err
		}
	}
	// Best effort pods share what others leave.
	return m, m.write("cpu", m.class(corev1.PodQOSBestEffort), "cpu.shares", "2")
}

// V2 reports whether the machine uses version 2.
func (m *Manager) V2() bool { return m.v2 }

// setupV2 turns on the controllers down to the pods.
func (m *Manager) setupV2() error {
	b, err := os.ReadFile(filepath.Join(m.mount, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var on []string
	for _, c := range strings.Fields(string(b)) {
		switch c {
		case "cpu", "cpuset", "memory", "pids", "io", "hugetlb":
			on = append(on, "+"+c)
		}
	}
	for _, group := range []string{"/", m.root, m.root + "/kubepods", m.class(corev1.PodQOSBurstable), m.class(corev1.PodQOSBestEffort)} {
		dir := filepath.Join(m.mount, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, c := range on {
			// One by one: a controller that cannot be had (delegation) must not cost the others.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(c), 0o644)
		}
	}
	return m.write("", m.class(corev1.PodQOSBestEffort), "cpu.weight", "1")
}

// classes are the qualities of service, each with a group of its own.
func classes() []corev1.PodQOSClass {
	return []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort}
}

// class returns the group of a quality-of-service class, below which its pods stand.
func (m *Manager) class(qos corev1.PodQOSClass) string {
	switch qos {
	case corev1.PodQOSBurstable:
		return m.root + "/kubepods/burstable"
	case corev1.PodQOSBestEffort:
		return m.root + "/kubepods/besteffort"
	}
	return m.root + "/kubepods"
}

// Path returns a pod's group, as the runtime wants it for cgroup_parent.
func (m *Manager) Path(uid string, qos corev1.PodQOSClass) string { return m.class(qos) + "/pod" + uid }

// Setup makes the pod's group and sets its limits. It returns the group for the runtime's cgroup_parent.
func (m *Manager) Setup(uid string, r podspec.PodResources) (string, error) {
	group := m.Path(uid, r.QOS)
	if err := m.mkdir(group); err != nil {
		return "", fmt.Errorf("control group of pod %s: %w", uid, err)
	}
	var err error
	if m.v2 {
		err = m.setV2(group, r)
	} else {
		err = m.setV1(group, r)
	}
	if err != nil {
		return "", fmt.Errorf("limits of pod %s: %w", uid, err)
	}
	return group, nil
}

// Raise raises those of the pod's limits that are lower than r's, so that containers can be given more before others have given back.
func (m *Manager) Raise(uid string, r podspec.PodResources) error {
	group, err := m.find(uid)
	if err != nil {
		return fmt.Errorf("control group of pod %s: %w", uid, err)
	}
	memory, quota, none, period := "memory.limit_in_bytes", "cpu.cfs_quota_us", "-1", ""
	memoryTree, cpuTree := "memory", "cpu"
	if m.v2 {
		memory, quota, none, period = "memory.max", "cpu.max", "max", " 100000"
		memoryTree, cpuTree = "", ""
	}
	value := func(n int64) string {
		if n == 0 {
			return none
		}
		return strconv.FormatInt(n, 10)
	}
	var errs []error
	// A file without a number says that there is no limit.
	if have, err := firstNumber(filepath.Join(m.mount, memoryTree, group, memory)); err == nil && (r.MemoryLimit == 0 || r.MemoryLimit > have) {
		errs = append(errs, m.write(memoryTree, group, memory, value(r.MemoryLimit)))
	}
	if have, err := firstNumber(filepath.Join(m.mount, cpuTree, group, quota)); err == nil && have > 0 && (r.Quota == 0 || r.Quota > have) {
		errs = append(errs, m.write(cpuTree, group, quota, value(r.Quota)+period))
	}
	return errors.Join(errs...)
}

func firstNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	return strconv.ParseInt(first, 10, 64)
}

func (m *Manager) setV1(group string, r podspec.PodResources) error {
	quota := r.Quota
	if quota == 0 {
		quota = -1
	}
	errs := []error{
		m.write("cpu", group, "cpu.shares", strconv.FormatInt(r.Shares, 10)),
		m.write("cpu", group, "cpu.cfs_quota_us", strconv.FormatInt(quota, 10)),
	}
	if r.MemoryLimit > 0 {
		errs = append(errs, m.write("memory", group, "memory.limit_in_bytes", strconv.FormatInt(r.MemoryLimit, 10)))
	}
	return errors.Join(errs...)
}

func (m *Manager) setV2(group string, r podspec.PodResources) error {
	dir := filepath.Join(m.mount, group)
	for _, c := range []string{"+cpu", "+cpuset", "+memory", "+pids", "+io", "+hugetlb"} {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(c), 0o644)
	}
	// The kernel's documented mapping of shares 2..262144 to weights 1..10000.
	weight := 1 + ((r.Shares-2)*9999)/262142
	quota := "max 100000"
	if r.Quota > 0 {
		quota = strconv.FormatInt(r.Quota, 10) + " 100000"
	}
	errs := []error{
		m.write("", group, "cpu.weight", strconv.FormatInt(weight, 10)),
		m.write("", group, "cpu.max", quota),
	}
	if r.MemoryLimit > 0 {
		errs = append(errs, m.write("", group, "memory.max", strconv.FormatInt(r.MemoryLimit, 10)))
	}
	return errors.Join(errs...)
}

// Remove removes the pod's group and all below it, in whichever class it stands. Processes in it must be gone.
func (m *Manager) Remove(uid string) error {
	var errs []error
	for _, qos := range classes() {
		for _, base := range m.bases() {
			errs = append(errs, removeTree(filepath.Join(base, m.Path(uid, qos))))
		}
	}
	return errors.Join(errs...)
}

// Pods returns the UIDs of all pods that have a group.
func (m *Manager) Pods() []string {
	seen := map[string]bool{}
	var out []string
	for _, base := range m.bases() {
		for _, qos := range classes() {
			entries, _ := os.ReadDir(filepath.Join(base, m.class(qos)))
			for _, e := range entries {
				if uid, ok := strings.CutPrefix(e.Name(), "pod"); ok && e.IsDir() && !seen[uid] {
					seen[uid] = true
					out = append(out, uid)
				}
			}
		}
	}
	return out
}

func (m *Manager) bases() []string {
	if m.v2 {
		return []string{m.mount}
	}
	return m.trees
}

// mkdir makes group where limits are set; the runtime makes it in the other trees.
func (m *Manager) mkdir(group string) error {
	if m.v2 {
		return os.MkdirAll(filepath.Join(m.mount, group), 0o755)
	}
	for _, t := range []string{"cpu", "memory"} {
		if err := os.MkdirAll(filepath.Join(m.mount, t, group), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) write(tree, group, file, value string) error {
	path := filepath.Join(m.mount, tree, group, file)
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // the controller is not there: nothing to limit with
		}
		return err
	}
	return nil
}

// removeTree removes a group and those below it; groups are removed by rmdir, their files go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
