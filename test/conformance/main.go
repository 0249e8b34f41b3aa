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
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// settings are the flags, one field each.
type settings struct {
	bin     string // folder with knarr and libexec
	dataDir string
	reuse   bool // the cluster is up already and stays up
	keep    bool // the cluster stays up afterwards, until interrupted

	focus   string
	skip    string
	all     bool // also the tests that wait for a feature
	smoke   bool
	procs   int
	timeout time.Duration

	reports string // folder for logs, results and JUnit
	passing string // the list of conformance tests that pass
	others  string // the list of tests without that tag that pass
	doc     string // the document to write
	update  bool
	missing bool
}

func main() {
	if addr := os.Getenv(envNode); addr != "" {
		fail(becomeNode(addr)) // the flags are the command's that runs there
	}
	s := flags()
	var err error
	for _, p := range []*string{&s.bin, &s.reports, &s.dataDir} {
		if *p, err = filepath.Abs(*p); err != nil {
			fail(err)
		}
	}
	c := &cluster{bin: s.bin, dataDir: s.dataDir}
	if os.Getenv(envInside) == "" {
		world := c.world()
		switch {
		case s.reuse && world == 0:
			fail(errors.New("no cluster is up (-keep leaves one)"))
		case !s.reuse && world != 0:
			fail(fmt.Errorf("process %d has a cluster in %s", world, s.dataDir))
		case !s.reuse:
			// Out here: what images are made from comes from the network, which the world does not reach.
			if _, err := buildImages(context.Background(), s.bin, "images"); err != nil {
				fail(err)
			}
		}
		fail(enterWorld(world))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, c); err != nil {
		fail(err)
	}
}

func flags() (s settings) {
	flag.StringVar(&s.bin, "bin", "../../bin", "folder with knarr, libexec and conformance")
	flag.StringVar(&s.dataDir, "data-dir", "/var/lib/knarr-conformance", "the cluster's data directories are made below it")
	flag.BoolVar(&s.reuse, "reuse", false, "use the cluster that is up already")
	flag.BoolVar(&s.keep, "keep", false, "leave the cluster up afterwards, until the program is interrupted")
	flag.StringVar(&s.focus, "focus", `\[Conformance\]`, "regular expression of the tests to run")
	flag.StringVar(&s.skip, "skip", "", "regular expression of tests not to run")
	flag.BoolVar(&s.all, "all", false, "run the tests that wait for a feature, too")
	flag.BoolVar(&s.missing, "missing", false, "leave out the conformance tests that are on the list of those that pass: with -update, after a feature came")
	flag.BoolVar(&s.smoke, "smoke", false, "run a sample of the tests that pass")
	flag.IntVar(&s.procs, "procs", 6, "tests at the same time; most of what they do is wait")
	flag.DurationVar(&s.timeout, "timeout", 3*time.Hour, "end of the whole run")
	flag.StringVar(&s.reports, "reports", "../../bin/conformance/report", "folder for logs, results and JUnit")
	flag.StringVar(&s.passing, "passing", "passing.txt", "list of tests that pass")
	flag.StringVar(&s.others, "others", "passing-others.txt", "list of tests not tagged Conformance that pass")
	flag.StringVar(&s.doc, "doc", "../../docs/conformance.md", "document to write with -update")
	flag.BoolVar(&s.update, "update", false, "add what passes to the list and write the document")
	flag.Parse()
	return s
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "conformance:", err)
	os.Exit(1)
}

func run(ctx context.Context, s settings, c *cluster) error {
	began := time.Now()
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
	judge := func() error {
		outcomes, err := runSuite(ctx, s, c, choose(s, tests, passing), s.procs, s.reports)
		if err != nil {
			return err
		}
		flaky, err := again(ctx, s, c, passing, outcomes)
		if err != nil {
			return err
		}
		report(os.Stdout, tests, outcomes)
		if s.update {
			all, err := readNames(s.results())
			if err != nil {
				return err
			}
			if err := update(s, tests, all, passing, outcomes); err != nil {
				return err
			}
		}
		return verdict(os.Stdout, s, passing, outcomes, flaky, time.Since(began))
	}
	if s.reuse {
		return judge()
	}
	return withCluster(ctx, s, c, judge)
}

// withCluster does something while the cluster is up.
func withCluster(ctx context.Context, s settings, c *cluster, do func() error) (err error) {
	began := time.Now()
	images, err := buildImages(ctx, s.bin, "images")
	if err != nil {
		return err
	}
	pulls, err := openRegistry(images)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // an interrupted suite still cleans up
	served, err := pulls.serve(serving)
	if err != nil {
		stop()
		return err
	}
	defer func() {
		stop()
		err = errors.Join(err, <-served)
	}()
	if err := c.down(); err != nil { // of a run that was killed
		return err
	}
	defer func() { err = errors.Join(err, c.down()) }()
	if err := c.up(ctx, images); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "two nodes are Ready with their images after %v\n", time.Since(began).Round(time.Second))
	err = do()
	if s.keep && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "%v\nthe cluster stays until process %d is interrupted; -reuse uses it meanwhile; by hand:\n"+
			"nsenter --net=/proc/%[2]d/ns/net %s --kubeconfig=%s get nodes\n", err, os.Getpid(), c.kubectl(), c.kubeconfig())
		<-ctx.Done()
	}
	return err
}

// maxAgain is how many failed tests are worth a second try; if there are more, something is broken.
const maxAgain = 12

// again runs listed tests that failed once more, one at a time, and returns what those that passed then had failed with first. On a
// machine that is short of time tests fail that are beside the wrong others; those that also fail alone are broken.
func again(ctx context.Context, s settings, c *cluster, passing map[string]bool, outcomes map[string]outcome) (map[string]outcome, error) {
	flaky := map[string]outcome{}
	failed := lost(passing, outcomes)
	if len(failed) == 0 || len(failed) > maxAgain {
		return flaky, nil
	}
	var sel selection
	for _, name := range failed {
		sel.focus = append(sel.focus, anchored(name))
	}
	fmt.Fprintf(os.Stderr, "%d listed tests failed; they are run once more, alone\n", len(failed))
	second, err := runSuite(ctx, s, c, sel, 1, filepath.Join(s.reports, "again"))
	if err != nil {
		return flaky, err
	}
	for _, name := range failed {
		if o := second[name]; o.State == passed {
			flaky[name] = outcomes[name]
			outcomes[name] = o
		}
	}
	return flaky, nil
}

// lost are the listed tests that ran and did not pass.
func lost(passing map[string]bool, outcomes map[string]outcome) (names []string) {
	for name := range passing {
		if o, ran := outcomes[name]; ran && o.State != passed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// verdict names the listed tests that did not pass and those that did only at the second try. It is an error if there are any of the
// former, or if a test of the sample did not run at all.
func verdict(w io.Writer, s settings, passing map[string]bool, outcomes, flaky map[string]outcome, took time.Duration) error {
	if len(outcomes) == 0 {
		return errors.New("no test ran")
	}
	for _, name := range slices.Sorted(maps.Keys(flaky)) {
		fmt.Fprintf(w, "\nFLAKY %s: passed alone, failed first with\n      %s\n", name, firstLine(flaky[name].Message))
	}
	failed := lost(passing, outcomes)
	for _, name := range failed {
		fmt.Fprintf(w, "\nLOST  %s\n      %s\n", name, firstLine(outcomes[name].Message))
	}
	var missing int
	if s.smoke {
		for _, name := range sample(passing) {
			if _, ran := outcomes[name]; !ran {
				fmt.Fprintf(w, "\nLOST  %s\n      it did not run\n", name)
				missing++
			}
		}
	}
	n := 0
	for _, o := range outcomes {
		if o.State == passed {
			n++
		}
	}
	what := "conformance"
	if s.smoke {
		what = "conformance-smoke"
	}
	fmt.Fprintf(w, "\n%s: %d of %d tests passed, %d of them at the second try; %d that are listed did not; %v\n", what, n, len(outcomes)+missing, len(flaky),
		len(failed)+missing, took.Round(time.Second))
	if len(failed)+missing > 0 {
		return fmt.Errorf("%d tests that are listed in %s did not pass; the suite's log is in %s", len(failed)+missing, s.passing, s.reports)
	}
	return nil
}
