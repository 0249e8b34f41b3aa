package machine

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// garbagePercent is how much garbage may gather before it is collected, in percent of what is in use. Go's default of 100 lets a process
// grow to twice of what it needs; half of it costs a fifth more processor time under load, and nothing when idle.
const garbagePercent = 50

// SaveMemory chooses memory over processor time, unless the environment says how (GOGC).
func SaveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// forgetStart gives back the memory behind those pages of the executable that only the start needed: half of what a control plane
// without work takes. What is used again comes back from the page cache, where all of it stays. It returns how much it asked the
// kernel to take.
func forgetStart() (bytes uintptr, _ error) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	for _, r := range unwritten(string(maps), program) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.from, r.to-r.from, unix.MADV_DONTNEED); errno != 0 {
			return bytes, errno
		}
		bytes += r.to - r.from
	}
	return bytes, nil
}

type addresses struct{ from, to uintptr }

// unwritten are the mappings of program in smaps (proc_pid_smaps(5)) that hold nothing but what is in its file. Others would lose what
// they hold: those that can be written, and those that were when the program was linked at its start (a position-independent or cgo build)
// and are read-only since, which shows as anonymous memory.
func unwritten(smaps, program string) []addresses {
	var out []addresses
	var last addresses
	candidate := false
	for line := range strings.Lines(smaps) {
		var r addresses
		var access string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &r.from, &r.to, &access); n == 3 {
			last, candidate = r, strings.HasSuffix(strings.TrimSpace(line), " "+program) && !strings.Contains(access, "w")
			continue
		}
		switch f := strings.Fields(line); {
		case len(f) < 2:
		case f[0] == "Anonymous:" || f[0] == "Swap:":
			candidate = candidate && f[1] == "0"
		case f[0] == "VmFlags:" && candidate: // the last line of each
			out = append(out, last)
		}
	}
	return out
}
