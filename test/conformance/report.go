package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

var sigName = regexp.MustCompile(`^\[(sig-[a-z-]+)\]`)

func sigOf(test string) string {
	if m := sigName.FindStringSubmatch(test); m != nil {
		return m[1]
	}
	return "other"
}

// tally counts a SIG's tests.
type tally struct{ all, passed, failed, skipped int }

// report prints the table of this run, and below it every failure in a line.
func report(w io.Writer, tests []string, outcomes map[string]outcome) {
	bySIG := map[string]*tally{}
	total := &tally{}
	of := func(name string) *tally {
		if bySIG[sigOf(name)] == nil {
			bySIG[sigOf(name)] = &tally{}
		}
		return bySIG[sigOf(name)]
	}
	for _, name := range tests {
		of(name).all++
		total.all++
	}
	for name, o := range outcomes {
		for _, t := range []*tally{of(name), total} {
			switch o.State {
			case passed:
				t.passed++
			case skipped:
				t.skipped++
			default:
				t.failed++
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		if o := outcomes[name]; o.State != passed && o.State != skipped {
			fmt.Fprintf(w, "FAIL %s (%.0f s)\n     %s\n", name, o.Seconds, firstLine(o.Message))
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\npassed\tfailed\tskipped\tof\t  SIG")
	for _, sig := range slices.Sorted(maps.Keys(bySIG)) {
		t := bySIG[sig]
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t  %s\n", t.passed, t.failed, t.skipped, t.all, sig)
	}
	fmt.Fprintf(table, "%d\t%d\t%d\t%d\t  all\n", total.passed, total.failed, total.skipped, total.all)
	_ = table.Flush()
}

// update adds what passed to the lists and writes the document. tests are the conformance tests, all those of the whole suite.
func update(s settings, tests, all []string, passing map[string]bool, outcomes map[string]outcome) error {
	others, err := readList(s.others)
	if err != nil {
		return err
	}
	for name, o := range outcomes {
		switch {
		case o.State != passed:
		case slices.Contains(tests, name):
			passing[name] = true
		default:
			others[name] = true
		}
	}
	seen, err := readFailures(s.failures())
	if err != nil {
		return err
	}
	for name, o := range outcomes {
		if o.State != passed {
			seen[name] = shorten(o)
		}
	}
	maps.DeleteFunc(seen, func(name string, _ string) bool { return passing[name] || others[name] || !slices.Contains(all, name) })
	if err := errors.Join(writeList(s.passing, passing), writeList(s.others, others), writeFailures(s.failures(), seen)); err != nil {
		return err
	}
	text := document(tests, passing, seen) + untagged(all, tests, others, seen)
	return os.WriteFile(s.doc, []byte(text), 0o644)
}

// untagged is the document's part about the tests that do not belong to the conformance suite.
func untagged(all, tests []string, others map[string]bool, seen map[string]string) string {
	var b strings.Builder
	of := map[string]*tally{}
	var failing []string
	for _, name := range all {
		if slices.Contains(tests, name) {
			continue
		}
		t := of[sigOf(name)]
		if t == nil {
			t = &tally{}
			of[sigOf(name)] = t
		}
		t.all++
		switch {
		case others[name]:
			t.passed++
		case strings.HasPrefix(seen[name], "skipped: "):
			t.skipped++
		case seen[name] != "":
			t.failed++
			failing = append(failing, name)
		}
	}
	b.WriteString("\n## Tests without the tag\n\nThe suite has more tests than those tagged Conformance, many of them for other systems, clouds and alpha features. " +
		"`make conformance FOCUS=regex` runs any of them; those that have\nbeen run, by SIG ([the list of those that pass](../test/conformance/passing-others.txt)):\n\n| SIG | pass | fail | skip themselves | in the suite |\n|---|---|---|---|---|\n")
	for _, sig := range slices.Sorted(maps.Keys(of)) {
		t := of[sig]
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", sig, t.passed, t.failed, t.skipped, t.all)
	}
	if len(failing) > 0 {
		b.WriteString("\nThose that fail:\n\n")
	}
	slices.Sort(failing)
	for _, name := range failing {
		fmt.Fprintf(&b, "- %s\n  `%s`\n", name, strings.ReplaceAll(seen[name], "`", "'"))
	}
	return b.String()
}

// document is docs/conformance.md: how many pass, and the others sorted by what they wait for.
func document(tests []string, passing map[string]bool, seen map[string]string) string {
	var b strings.Builder
	all, ok := map[string]int{}, map[string]int{}
	waiting := map[string][]string{}
	var mend, unseen []string
	for _, name := range tests {
		all[sigOf(name)]++
		feature := waitsFor(name)
		switch {
		case passing[name]:
			ok[sigOf(name)]++
		case feature != "":
			waiting[feature] = append(waiting[feature], name)
		case seen[name] != "":
			mend = append(mend, name)
		default:
			unseen = append(unseen, name)
		}
	}
	fmt.Fprintf(&b, `# Kubernetes' conformance suite

Kubernetes' own end-to-end suite v1.37, unmodified, against a Knarr cluster of two nodes with real containers. %d of its %d conformance tests pass. Written by
%s; [the list of tests that pass](../test/conformance/passing.txt) only grows, and CI fails when a listed test fails
(%s runs a sample of them; a test that fails is tried once more, alone). There is no image registry: the images that the suite asks
for are [assembled](../test/conformance/images) from its own sources and Debian packages.

| SIG | pass | of |
|---|---|---|
`, len(passing), len(tests), "`make conformance`", "`make conformance-smoke`")
	for _, sig := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", sig, ok[sig], all[sig])
	}
	b.WriteString("\n## What the others wait for\n\n| feature | tests |\n|---|---|\n")
	features := slices.SortedFunc(maps.Keys(waiting), func(x, y string) int {
		if d := len(waiting[y]) - len(waiting[x]); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	for _, f := range features {
		fmt.Fprintf(&b, "| %s | %d |\n", f, len(waiting[f]))
	}
	fmt.Fprintf(&b, "| to be mended (below) | %d |\n| not run yet | %d |\n", len(mend), len(unseen))
	if len(mend) > 0 {
		b.WriteString("\n## To be mended\n\n")
	}
	for _, name := range mend {
		fmt.Fprintf(&b, "- %s\n  `%s`\n", name, strings.ReplaceAll(seen[name], "`", "'"))
	}
	for _, f := range features {
		fmt.Fprintf(&b, "\n## Waits for: %s\n\n- %s\n", f, strings.Join(waiting[f], "\n- "))
	}
	if len(unseen) > 0 {
		fmt.Fprintf(&b, "\n## Not run yet\n\n- %s\n", strings.Join(unseen, "\n- "))
	}
	return b.String()
}
