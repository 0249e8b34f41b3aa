package machine

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

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

// Processes returns how many more processes the machine can have, and how many in all; 1 of 1 where that is not known.
func Processes() (left, most int64) {
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
	most, _ = strconv.ParseInt(strings.TrimSpace(string(m)), 10, 64)
	return most - n, most
}
