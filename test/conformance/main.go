// Command conformance lets Kubernetes' own end-to-end suite judge Knarr: it starts a cluster on real containers, provides the images
// that the suite asks for under the names it asks for, runs the suite's conformance tests, and prints a table per SIG.
//
//	make conformance [FOCUS=regex]   every conformance test whose feature is there
//	make conformance-smoke           a parallel sample of the tests that pass
//
// It is a module of its own: nothing of the suite is linked into Knarr. What flows through it: the suite's list of conformance tests
// (conformance.yaml), the tests that have ever passed (passing.txt, which only grows), what the others wait for (waits.go), and the
// report of Ginkgo. What must stay true: a test of passing.txt that fails makes the run fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// settings are the flags, one field each.
type settings struct {
	bin     string // folder with knarr and libexec
	dataDir string
	listen  string
	reuse   bool // the cluster is up already and stays up
	keep    bool // the cluster stays up afterwards

	focus   string
	skip    string
	all     bool // also the tests that wait for a feature
	smoke   bool
	procs   int
	timeout time.Duration

	reports string // folder for logs, results and JUnit
	passing string // the list of tests that pass
	doc     string // the document to write
	update  bool
}

func main() {
	var s settings
	flag.StringVar(&s.bin, "bin", "../../bin", "folder with knarr, libexec and conformance")
	flag.StringVar(&s.dataDir, "data-dir", "/var/lib/knarr-conformance", "the cluster's data directory")
	flag.StringVar(&s.listen, "listen", "0.0.0.0:16743", "the address at which the cluster's API listens")
	flag.BoolVar(&s.reuse, "reuse", false, "use the cluster that is up already")
	flag.BoolVar(&s.keep, "keep", false, "leave the cluster up afterwards")
	flag.StringVar(&s.focus, "focus", `\[Conformance\]`, "regular expression of the tests to run")
	flag.StringVar(&s.skip, "skip", "", "regular expression of tests not to run")
	flag.BoolVar(&s.all, "all", false, "run the tests that wait for a feature, too")
	flag.BoolVar(&s.smoke, "smoke", false, "run a sample of the tests that pass")
	flag.IntVar(&s.procs, "procs", 6, "tests at the same time; most of what they do is wait")
	flag.DurationVar(&s.timeout, "timeout", 3*time.Hour, "end of the whole run")
	flag.StringVar(&s.reports, "reports", "../../bin/conformance/report", "folder for logs, results and JUnit")
	flag.StringVar(&s.passing, "passing", "passing.txt", "list of tests that pass")
	flag.StringVar(&s.doc, "doc", "../../docs/conformance.md", "document to write with -update")
	flag.BoolVar(&s.update, "update", false, "add what passes to the list and write the document")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	for _, p := range []*string{&s.bin, &s.reports} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	tests, err := conformanceTests()
	if err != nil {
		return err
	}
	passing, err := readList(s.passing)
	if err != nil {
		return err
	}
	if s.smoke && len(sample(passing)) == 0 {
		return fmt.Errorf("%s lists no test to take a sample of", s.passing)
	}
	c := &cluster{bin: s.bin, dataDir: s.dataDir, listen: s.listen}
	if !s.reuse {
		images, err := buildImages(ctx, s.bin, "images")
		if err != nil {
			return err
		}
		if !s.keep {
			defer func() {
				if e := c.down(); err == nil {
					err = e
				}
			}()
		}
		if err := c.up(ctx, images); err != nil {
			return err
		}
	}
	outcomes, err := runSuite(ctx, s, choose(s, tests, passing))
	if err != nil && len(outcomes) == 0 {
		return err
	}
	report(os.Stdout, tests, outcomes)
	if s.update {
		if err := update(s, tests, passing, outcomes); err != nil {
			return err
		}
	}
	return verdict(s, passing, outcomes)
}

// verdict is an error if a test that has passed before did not pass now.
func verdict(s settings, passing map[string]bool, outcomes map[string]outcome) error {
	var lost []string
	for name := range passing {
		o, ran := outcomes[name]
		if ran && o.State != passed {
			lost = append(lost, name)
		}
	}
	if len(outcomes) == 0 {
		return errors.New("no test ran")
	}
	if len(lost) == 0 {
		return nil
	}
	for _, name := range lost {
		fmt.Printf("\nLOST  %s\n      %s\n", name, firstLine(outcomes[name].Message))
	}
	return fmt.Errorf("%d tests that are listed in %s did not pass; the suite's log is in %s", len(lost), s.passing, s.reports)
}
