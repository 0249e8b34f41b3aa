package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheSuiteListsItsTests(t *testing.T) {
	tests, err := conformanceTests()
	if err != nil {
		t.Fatal(err)
	}
	if len(tests) != 462 {
		t.Errorf("%d conformance tests, v1.37 has 462", len(tests))
	}
	for _, w := range waits {
		if !slices.ContainsFunc(tests, w.tests.MatchString) {
			t.Errorf("no test waits for %s: the entry can go", w.feature)
		}
	}
	passing, err := readList("passing.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name := range passing {
		if !slices.Contains(tests, name) {
			t.Errorf("passing.txt lists a test that the suite does not have: %s", name)
		}
	}
}

func TestChoose(t *testing.T) {
	tests := []string{"[sig-storage] CSI works", "[sig-a] Pods work", "[sig-storage] CSI that works"}
	passing := map[string]bool{"[sig-storage] CSI that works": true, "[sig-a] Pods work": true, "[sig-c] alone [Serial]": true}
	sel := choose(settings{focus: "x"}, tests, passing)
	if !slices.Equal(sel.focus, []string{"x"}) || !slices.Equal(sel.skip, []string{anchored(tests[0])}) {
		t.Errorf("a run skips what waits and has never passed, got %+v", sel)
	}
	if sel := choose(settings{focus: "x", all: true}, tests, passing); len(sel.skip) != 0 {
		t.Errorf("-all skips nothing, got %+v", sel)
	}
	sel = choose(settings{smoke: true}, tests, passing)
	if !slices.Equal(sel.focus, []string{anchored("[sig-a] Pods work")}) {
		t.Errorf("the sample has every other test that need not be alone, got %q", sel.focus)
	}
}

func TestVerdict(t *testing.T) {
	passing := map[string]bool{"a": true, "b": true}
	for name, c := range map[string]struct {
		outcomes map[string]outcome
		good     bool
	}{
		"all listed passed, one did not run": {map[string]outcome{"a": {State: passed}}, true},
		"an unlisted one failed":             {map[string]outcome{"a": {State: passed}, "c": {State: "failed"}}, true},
		"a listed one failed":                {map[string]outcome{"a": {State: "failed"}}, false},
		"a listed one was skipped":           {map[string]outcome{"a": {State: skipped}}, false},
		"nothing ran":                        {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := verdict(io.Discard, settings{}, passing, c.outcomes, nil, time.Minute); (err == nil) != c.good {
				t.Errorf("good = %v, verdict %v", c.good, err)
			}
		})
	}
}

func TestLastWordsNameNoMachine(t *testing.T) {
	got := shorten(outcome{State: "failed", Message: "error running /home/me/bin/kubectl --server=https://10.0.0.1:6443 --kubeconfig=/var/x/kubeconfig get pods -l a=b: pod web-1234 is gone\nmore"})
	if want := "error running kubectl get pods -l a=b: pod web… is gone"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A run of a few tests must not make the list shorter, nor forget what other tests said.
func TestUpdateOnlyAdds(t *testing.T) {
	dir := t.TempDir()
	s := settings{passing: filepath.Join(dir, "passing.txt"), others: filepath.Join(dir, "others.txt"), doc: filepath.Join(dir, "conformance.md")}
	tests := []string{"[sig-a] one", "[sig-a] two", "[sig-b] three", "[sig-b] four"}
	all := append([]string{"[sig-b] not conformance", "[sig-b] nor this", "[sig-b] only elsewhere", "[sig-c] never run"}, tests...)
	step := func(outcomes map[string]outcome) map[string]bool {
		t.Helper()
		passing, err := readList(s.passing)
		if err != nil {
			t.Fatal(err)
		}
		if err := update(s, tests, all, passing, outcomes); err != nil {
			t.Fatal(err)
		}
		if passing, err = readList(s.passing); err != nil {
			t.Fatal(err)
		}
		return passing
	}
	step(map[string]outcome{tests[0]: {State: passed}, tests[1]: {State: "failed", Message: "\n  pod dns-1234 at 10.244.0.7 was slow\nmore"}})
	got := step(map[string]outcome{tests[0]: {State: "failed", Message: "flake"}, tests[2]: {State: passed}, all[0]: {State: passed}, all[1]: {State: "failed", Message: "no"}, all[2]: {State: skipped, Message: "for clouds"}})
	if len(got) != 2 || !got[tests[0]] || !got[tests[2]] {
		t.Errorf("passing: %v", got)
	}
	doc, err := os.ReadFile(s.doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 of its 4 conformance tests pass", "| sig-b | 1 | 2 |", "- [sig-a] two\n  `pod dns… at … was slow`", "## Not run yet\n\n- [sig-b] four",
		"| sig-b | 1 | 1 | 1 | 3 |", "| sig-c | 0 | 0 | 0 | 1 |", "- [sig-b] nor this\n  `no`"} {
		if !strings.Contains(string(doc), want) {
			t.Errorf("the document lacks %q:\n%s", want, doc)
		}
	}
}

func TestVerdictNamesWhatIsFlakyAndWhatDidNotRun(t *testing.T) {
	passing := map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true}
	var out strings.Builder
	outcomes := map[string]outcome{"a": {State: passed}, "b": {State: "failed", Message: "broken"}, "c": {State: passed}}
	err := verdict(&out, settings{smoke: true}, passing, outcomes, map[string]outcome{"a": {State: "failed", Message: "slow"}}, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "2 tests that are listed") {
		t.Errorf("verdict: %v", err)
	}
	for _, want := range []string{"FLAKY a: passed alone, failed first with\n      slow", "LOST  b\n      broken", "LOST  e\n      it did not run", "conformance-smoke: 2 of 4"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the verdict lacks %q:\n%s", want, out.String())
		}
	}
}
