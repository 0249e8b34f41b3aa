package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machineUse is how much processor time the machine, and of it this bench with its children, has used so far.
type machineUse struct {
	at        time.Time
	all, ours time.Duration
}

func observeMachine() (machineUse, error) {
	use := machineUse{at: time.Now()}
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return use, err
	}
	line, _, _ := strings.Cut(string(b), "\n") // cpu user nice system idle iowait irq softirq steal ...
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return use, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return use, fmt.Errorf("/proc/stat: %w", err)
		}
		use.all += time.Duration(n) * 10 * time.Millisecond
	}
	var self, children syscall.Rusage
	if err := errors.Join(syscall.Getrusage(syscall.RUSAGE_SELF, &self), syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children)); err != nil {
		return use, err
	}
	for _, t := range []syscall.Timeval{self.Utime, self.Stime, children.Utime, children.Stime} {
		use.ours += time.Duration(t.Nano())
	}
	return use, nil
}

// others returns the share of the machine that was taken by others between two looks: rates measured on a busy machine mean little.
func others(from, to machineUse) float64 {
	total := to.at.Sub(from.at) * time.Duration(runtime.NumCPU())
	return max(0, float64((to.all-from.all)-(to.ours-from.ours))/float64(total))
}
