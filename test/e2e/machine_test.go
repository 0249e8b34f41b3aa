package e2e

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// machineState is everything on the machine that a cluster might leave behind or change, as readable lines that begin with a
// kind. Of what is not confined to the network namespace of the tests, it has what might be of any cluster's.
type machineState map[string]bool

// kinds are all that a machineState has.
var kinds = []string{"link", "address", "route", "rule", "nftables", "sysctl", "mount", "cgroup", "process", "file"}

// observeMachine reads the state of the machine.
func observeMachine() (machineState, error) {
	s := machineState{}
	for _, read := range []func() error{s.network, s.sysctls, s.mounts, s.cgroups, s.processes, s.files} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s machineState) add(kind, what string) { s[kind+" "+what] = true }

func (s machineState) network() error {
	for _, c := range []struct {
		kind, command string
		// keep picks what identifies a line.
		keep *regexp.Regexp
	}{
		{"link", "ip -o link", regexp.MustCompile(`^\d+: [^:]+`)},
		{"address", "ip -o -4 addr", regexp.MustCompile(`^\d+: \S+ +inet \S+`)}, // IPv6 link-local ones come and go by themselves
		{"route", "ip -4 route show table all", regexp.MustCompile(`^.*`)},
		{"rule", "ip rule", regexp.MustCompile(`^.*`)},
		{"nftables", "nft list tables", regexp.MustCompile(`^.*`)},
	} {
		f := strings.Fields(c.command)
		out, err := exec.Command(f[0], f[1:]...).Output()
		if err != nil {
			return fmt.Errorf("%s: %w", c.command, err)
		}
		for line := range strings.Lines(string(out)) {
			// A link that was just made carries nothing for a moment.
			line = strings.TrimSuffix(strings.TrimSpace(line), " linkdown")
			s.add(c.kind, strings.TrimSpace(c.keep.FindString(line)))
		}
	}
	return nil
}

// sysctls reads the settings of the network namespace.
func (s machineState) sysctls() error {
	for _, pattern := range []string{"ip_*", "conf/all/*", "conf/default/*", "conf/lo/*", "conf/eth0/*"} {
		for _, family := range []string{"ipv4", "ipv6"} {
			files, err := filepath.Glob(filepath.Join("/proc/sys/net", family, pattern))
			if err != nil {
				return err
			}
			for _, f := range files {
				if b, err := os.ReadFile(f); err == nil { // some can only be written
					s.add("sysctl", strings.TrimPrefix(f, "/proc/sys/")+" = "+strings.TrimSpace(string(b)))
				}
			}
		}
	}
	return nil
}

func (s machineState) mounts() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			s.add("mount", f[4])
		}
	}
	return nil
}

func (s machineState) cgroups() error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() { // an error is a group that went away while we looked
			s.add("cgroup", path)
		}
		return nil
	})
}

// processes reads what tells whose a process is: its arguments, its executable and its cgroups.
func (s machineState) processes() error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		cmd, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(cmd) == 0 {
			continue // gone, or a kernel thread
		}
		exe, _ := os.Readlink(dir + "/exe")
		groups, _ := os.ReadFile(dir + "/cgroup")
		s.add("process", fmt.Sprintf("%s %s (executable %s, cgroups %s)", filepath.Base(dir),
			bytes.TrimSpace(bytes.ReplaceAll(cmd, []byte{0}, []byte(" "))), exe, strings.Join(strings.Fields(string(groups)), " ")))
	}
	return nil
}

// files reads where programs leave files, and what others read.
func (s machineState) files() error {
	for _, dir := range []string{"/run", "/var/lib/cni", "/etc/cni", "/opt/cni", "/var/log", "/tmp", "/dev/shm"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil {
				s.add("file", path)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	home, _ := os.UserHomeDir()
	for _, file := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/fstab", "/etc/nftables.conf", "/etc/environment", "/etc/passwd", home + "/.kube/config"} {
		if b, err := os.ReadFile(file); err == nil {
			s.add("file", fmt.Sprintf("%s with content %x", file, crc32.ChecksumIEEE(b)))
		}
	}
	return nil
}

// instanceTable finds the name by which a cluster marks what it makes, in the list of nftables tables: nobody else has one in the
// network namespace of the tests.
var instanceTable = regexp.MustCompile(`nftables table ip (knarr-[0-9a-f]+)`)

// marks are what the names of everything that the cluster made contain, by what was there when it ran.
func (s machineState) marks() []string {
	out := []string{cluster.dataDir}
	for k := range s {
		if m := instanceTable.FindStringSubmatch(k); m != nil {
			out = append(out, m[1])
		}
	}
	return out
}

// sharedSockets is where shims have their sockets that belong to long data directories.
const sharedSockets = "/run/knarr-shims"

// ours reports whether a line can be of a cluster that has marks. The network namespace is ours; other things may be of another
// cluster on the machine.
func ours(line string, marks []string) bool {
	switch kind, _, _ := strings.Cut(line, " "); kind {
	case "mount", "cgroup", "process":
		return slices.ContainsFunc(marks, func(m string) bool { return strings.Contains(line, m) })
	case "file":
		if strings.Contains(line, "with content") {
			return true
		}
		if path, ok := strings.CutSuffix(line, sharedSockets); ok {
			// Clusters share it; whoever is the last one removes it.
			inside, err := os.ReadDir(sharedSockets)
			return path == "file " && err == nil && len(inside) == 0
		}
		for _, m := range marks {
			if strings.Contains(line, strings.TrimPrefix(m, "knarr-")) {
				return true
			}
		}
		return false
	}
	return true
}

// differences returns what is in one of s and now only, and of a cluster that has marks.
func (s machineState) differences(now machineState, marks []string) []string {
	var out []string
	for k := range now {
		if !s[k] && ours(k, marks) {
			out = append(out, "new: "+k)
		}
	}
	for k := range s {
		if !now[k] && ours(k, marks) {
			out = append(out, "gone: "+k)
		}
	}
	sort.Strings(out)
	return out
}

// unseen returns the kinds, but for rules, which clusters have none of, in which there is no difference to now.
func (s machineState) unseen(now machineState, marks []string) []string {
	differences := strings.Join(s.differences(now, marks), "\n")
	return slices.DeleteFunc(slices.Clone(kinds), func(kind string) bool {
		return kind == "rule" || strings.Contains(differences, "new: "+kind+" ")
	})
}
