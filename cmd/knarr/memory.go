package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// garbagePercent is how much garbage may gather before it is collected, in percent of what is in use. Go's default of 100 lets a process
// grow to twice of what it needs; half of it costs a fifth more processor time under load, and nothing when idle.
const garbagePercent = 50

// saveMemory chooses memory over processor time, unless the environment says how (GOGC).
func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// forgetStart gives back the memory behind those pages of the executable that only the start needed: half of what a control plane
// without work takes. What is used again comes back from the page cache, where all of it stays. It returns how much it asked the
// kernel to take.
func forgetStart() (bytes uintptr, _ error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var access string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &access); n < 3 {
			continue
		}
		// Code and constants only: what can be written would be lost.
		if strings.Contains(access, "w") || !strings.HasSuffix(lines.Text(), " "+program) {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return bytes, errno
		}
		bytes += to - from
	}
	return bytes, nil
}
