package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// machineState is everything on the machine that a cluster might leave behind: links, nftables tables, mounts, control groups,
// processes, addresses, routes. Keys are readable.
type machineState map[string]bool

// added returns what is in now and was not in s.
func (s machineState) added(now machineState) []string {
	var out []string
	for k := range now {
		if !s[k] {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

func observeMachine() (machineState, error) {
	s := machineState{}
	for _, c := range []struct {
		what string
		args []string
		// field picks what identifies a line.
		keep func(line string) string
	}{
		{"link", []string{"ip", "-o", "link"}, secondField},
		{"address", []string{"ip", "-o", "addr"}, addressField},
		{"route", []string{"ip", "-4", "route", "show", "table", "all"}, strings.TrimSpace},
		{"rule", []string{"ip", "rule"}, strings.TrimSpace},
		{"nftables", []string{"nft", "list", "tables"}, strings.TrimSpace},
	} {
		out, err := exec.Command(c.args[0], c.args[1:]...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(c.args, " "), err)
		}
		for scan := bufio.NewScanner(bytes.NewReader(out)); scan.Scan(); {
			if k := c.keep(scan.Text()); k != "" {
				s[c.what+" "+k] = true
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 4 {
			s["mount "+f[4]] = true
		}
	}
	if err := s.cgroups(); err != nil {
		return nil, err
	}
	return s, s.processes()
}

func secondField(line string) string {
	f := strings.Fields(line)
	if len(f) < 2 {
		return ""
	}
	return strings.TrimSuffix(strings.SplitN(f[1], "@", 2)[0], ":")
}

func addressField(line string) string {
	f := strings.Fields(line)
	if len(f) < 4 {
		return ""
	}
	return f[1] + " " + f[3]
}

func (s machineState) cgroups() error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a group that went away while we looked
		}
		if d.IsDir() && strings.Contains(path, "knarr") {
			s["cgroup "+path] = true
		}
		return nil
	})
}

// processes adds those whose executable or arguments say that they are Knarr's.
func (s machineState) processes() error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		cmd, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(cmd) == 0 {
			continue
		}
		args := strings.Split(strings.TrimRight(string(cmd), "\x00"), "\x00")
		base := filepath.Base(args[0])
		if base == "knarr" || strings.HasPrefix(base, "containerd-shim") || base == "pause" || args[0] == "/pause" {
			s["process "+filepath.Base(dir)+" "+strings.Join(args, " ")] = true
		}
	}
	return nil
}
