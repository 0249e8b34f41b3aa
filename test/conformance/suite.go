package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// The states of Ginkgo that are told apart here; every other one is a failure of some kind.
const (
	passed  = "passed"
	skipped = "skipped"
)

// outcome is what became of one test.
type outcome struct {
	State   string
	Seconds float64
	Message string
}

// selection is which tests Ginkgo runs.
type selection struct{ focus, skip []string }

// choose says which tests to run. Tests that must be alone ([Serial]) Ginkgo runs last by itself.
func choose(s settings, tests []string, passing map[string]bool) selection {
	if s.smoke {
		var sel selection
		for _, name := range sample(passing) {
			sel.focus = append(sel.focus, anchored(name))
		}
		return sel
	}
	sel := selection{focus: []string{s.focus}}
	if s.skip != "" {
		sel.skip = append(sel.skip, s.skip)
	}
	if s.all {
		return sel
	}
	for _, name := range tests {
		if waitsFor(name) != "" && !passing[name] || s.missing && passing[name] {
			sel.skip = append(sel.skip, anchored(name))
		}
	}
	return sel
}

// long are tests that wait for a minute or more; one of them, begun last, would make a sample take as long again.
var long = regexp.MustCompile(`\[Slow\]|Probing container should (\*not\* be restarted|have monotonically|be restarted with a (GRPC|exec))|` +
	`readiness probe that fails should never|500 podspec updates|resourcequota status|same hostPort but different hostIP|extended resize`)

// sample picks tests that pass, from every SIG in proportion: every other one in the order of names, without those that must run alone.
func sample(passing map[string]bool) []string {
	var names, out []string
	for name := range passing {
		if !strings.Contains(name, "[Serial]") && !strings.Contains(name, "[Disruptive]") && !long.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		if i%2 == 0 {
			out = append(out, name)
		}
	}
	return out
}

// runSuite runs the suite against the cluster and returns the outcomes, also those of a run that failed or was interrupted. Logs and
// reports go to a folder.
func runSuite(ctx context.Context, s settings, c *cluster, sel selection, procs int, folder string) (map[string]outcome, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	results := filepath.Join(folder, "results.json")
	if err := os.Remove(results); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := os.Create(filepath.Join(folder, "suite.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"run", "--procs=" + strconv.Itoa(procs), "--no-color", "--timeout=" + s.timeout.String(), "--keep-going",
		"--poll-progress-after=0", "--randomize-all", "--output-dir=" + folder, "--json-report=results.json", "--junit-report=junit.xml"}
	for _, f := range sel.focus {
		args = append(args, "--focus="+f)
	}
	for _, f := range sel.skip {
		args = append(args, "--skip="+f)
	}
	args = append(args, filepath.Join(s.bin, "conformance", "e2e.test"), "--",
		"--kubeconfig="+c.kubeconfig(), "--kubectl-path="+c.kubectl(),
		"--provider=skeleton", "--disable-log-dump", "--num-nodes="+strconv.Itoa(nodes)) // without a number, tests for two nodes skip themselves
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "conformance", "ginkgo"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Interrupted, the tests clean up; they are killed if that takes too long. Ginkgo does not tell the processes that it starts: each
	// gets the signal, and just one, in a group of their own.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	fmt.Fprintf(os.Stderr, "running the suite; what it says goes to %s\n", log.Name())
	runErr := cmd.Run()
	outcomes, err := readOutcomes(results)
	if err != nil {
		return nil, errors.Join(runErr, err)
	}
	var failed *exec.ExitError
	if errors.As(runErr, &failed) && ctx.Err() == nil {
		runErr = nil // tests that failed are in the outcomes
	}
	return outcomes, runErr
}

// readOutcomes returns what became of the tests that ran.
func readOutcomes(file string) (map[string]outcome, error) {
	outcomes := map[string]outcome{}
	err := readReport(file, func(spec types.SpecReport) {
		if spec.RunTime > 0 {
			outcomes[spec.FullText()] = outcome{State: spec.State.String(), Seconds: spec.RunTime.Seconds(), Message: spec.FailureMessage()}
		}
	})
	return outcomes, err
}

// readNames returns the names of all tests of the suite, those that were not chosen, too.
func readNames(file string) (names []string, err error) {
	err = readReport(file, func(spec types.SpecReport) { names = append(names, spec.FullText()) })
	return names, err
}

// readReport reads Ginkgo's report, in which tests that were not chosen appear as skipped without having taken any time.
func readReport(file string, each func(types.SpecReport)) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the suite left no report: %w", err)
	}
	var reports []types.Report
	if err := json.Unmarshal(data, &reports); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, r := range reports {
		for _, spec := range r.SpecReports {
			if spec.LeafNodeType == types.NodeTypeIt {
				each(spec)
			}
		}
	}
	return nil
}

// anchored matches one test. Ginkgo matches against the suite's description, a space and the test's name.
func anchored(name string) string { return " " + regexp.QuoteMeta(name) + "$" }
