package machine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What the kernel does with it is not ours to test, but that the whole program is found, and goes on, is.
func TestForgetStart(t *testing.T) {
	bytes, err := forgetStart()
	if err != nil {
		t.Fatal(err)
	}
	if bytes < 10<<20 {
		t.Errorf("found %d bytes of the program in memory", bytes)
	}
	if again, err := forgetStart(); err != nil || again != bytes {
		t.Errorf("a second time: %d bytes, %v; want %d", again, err, bytes)
	}
}

func TestOnlyWhatTheFileHasIsForgotten(t *testing.T) {
	var smaps strings.Builder
	mapping := func(from, to, access, file, anonymous, swap string) {
		fmt.Fprintf(&smaps, "%s-%s %s 00000000 fe:00 247741     %s\nSize:    12 kB\nAnonymous:   %s kB\nSwap:   %s kB\nSwapPss:  0 kB\nVmFlags: rd mr mw me \n", from, to, access, file, anonymous, swap)
	}
	mapping("1000", "2000", "r--p", "/bin/knarr", "0", "0")
	mapping("2000", "3000", "r-xp", "/bin/knarr", "0", "0")
	mapping("3000", "4000", "r--p", "/bin/knarr", "4", "0") // relocated
	mapping("4000", "5000", "r--p", "/bin/knarr", "0", "4") // and swapped out
	mapping("5000", "6000", "rw-p", "/bin/knarr", "0", "0")
	mapping("6000", "7000", "r--p", "/lib/other", "0", "0")
	mapping("7000", "8000", "r--p", "", "0", "0")
	want := []addresses{{0x1000, 0x2000}, {0x2000, 0x3000}}
	if got := unwritten(smaps.String(), "/bin/knarr"); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}
