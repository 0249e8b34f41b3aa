// Command bench measures Knarr from outside, as its users meet it: a server process that is started, spoken to over HTTPS and ended
// again. `make bench` runs all of it, `go run ./test/bench -knarr bin/knarr -only pods-100` a part.
//
// What flows through it: every measure starts servers in data directories of its own, drives a bounded load and returns figures,
// which are printed beside the goals of docs/performance.md. What must stay true: figures never fail a run (only a measure that
// could not be taken does, and then the others still run); every process is ended by its id and every directory removed; nothing on the
// machine is left changed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

// bench is what every measure works with.
type bench struct {
	knarr   string // the executable
	dir     string // for data directories
	quick   bool
	profile string // where CPU and heap profiles of the server go; empty for none
}

// figure is one line of the table.
type figure struct {
	what  string
	value string
	goal  string
	note  string
}

// measure is a named group of figures.
type measure struct {
	name  string
	about string
	run   func(context.Context, *bench) ([]figure, error)
}

func measures() []measure {
	return []measure{
		{"start", "process start to ready API", measureStart},
		{"idle", "an empty control plane: memory, CPU", measureIdle},
		{"pods-100", "20 Deployments on 100 hollow nodes to all Ready", measurePods100},
		{"pods-1000", "20 Deployments on 1,000 hollow nodes to all Ready", measurePods1000},
		{"reads", "lists and watches over HTTPS", measureReads},
		{"node", "the whole node with containerd: memory, CPU (root)", measureNode},
		{"podstart", "pod start on real containerd beside the bare CRI calls (root)", measurePodStart},
	}
}

func main() {
	var b bench
	var only string
	flag.StringVar(&b.knarr, "knarr", "bin/knarr", "the knarr executable to measure")
	flag.StringVar(&only, "only", "", "comma-separated measures to take: "+names())
	flag.BoolVar(&b.quick, "quick", false, "smaller loads and shorter waits")
	flag.StringVar(&b.profile, "profile", "", "directory for CPU and heap profiles of the server during pods-* and reads")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := b.run(ctx, only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names() string {
	var out []string
	for _, m := range measures() {
		out = append(out, m.name)
	}
	return strings.Join(out, ", ")
}

// run takes the measures and prints the table as it grows.
func (b *bench) run(ctx context.Context, only string) error {
	var err error
	if b.knarr, err = filepath.Abs(b.knarr); err != nil {
		return err
	}
	if _, err := os.Stat(b.knarr); err != nil {
		return fmt.Errorf("no knarr to measure (make build makes bin/knarr): %w", err)
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "knarr-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if err := os.Chmod(b.dir, 0o755); err != nil { // containers of other users must pass through
		return err
	}
	var chosen []string
	if only != "" {
		chosen = strings.Split(only, ",")
		for _, c := range chosen {
			if !slices.ContainsFunc(measures(), func(m measure) bool { return m.name == c }) {
				return fmt.Errorf("-only %q: there are %s", c, names())
			}
		}
	}
	var failed []error
	for _, m := range measures() {
		if chosen != nil && !slices.Contains(chosen, m.name) {
			continue
		}
		fmt.Printf("%s: %s\n", m.name, m.about)
		before, err := observeMachine()
		if err != nil {
			return err
		}
		figures, err := m.run(ctx, b)
		printFigures(figures)
		if err != nil {
			fmt.Printf("  not measured: %v\n", err)
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		after, err := observeMachine()
		if err != nil {
			return err
		}
		fmt.Printf("  (took %.0f s; %s)\n\n", after.at.Sub(before.at).Seconds(), others(before, after))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func printFigures(figures []figure) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range figures {
		goal := ""
		if f.goal != "" {
			goal = "goal " + f.goal
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", f.what, f.value, goal, f.note)
	}
	_ = w.Flush() // standard output
}
