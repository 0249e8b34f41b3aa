package machine

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// UpperDir returns the directory with the files that the container of a process has written: the upper directory of its overlay, as
// the process sees it mounted; "" where there is none.
func UpperDir(pid int) string {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return ""
	}
	defer f.Close()
	return upperDir(bufio.NewScanner(f))
}

// upperDir finds the upper directory of the overlay that is mounted at / in a mountinfo (proc_pid_mountinfo(5)).
func upperDir(lines *bufio.Scanner) string {
	for lines.Scan() {
		mount, rest, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 5 || fields[4] != "/" || !strings.HasPrefix(rest, "overlay ") {
			continue
		}
		parts := strings.Fields(rest)
		for o := range strings.SplitSeq(parts[len(parts)-1], ",") {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
				return dir
			}
		}
	}
	return ""
}
