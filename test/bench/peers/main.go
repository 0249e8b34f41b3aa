// Command peers measures Knarr and Kubernetes - kube-apiserver, kube-controller-manager, kube-scheduler, etcd, and kwok for the nodes -
// on the same machine, in turn, under the same load, and prints the ratios. `make bench-peers` builds all of them and runs it.
//
// What flows through it: each phase starts a control plane in a temporary directory and a network of its own (isolate.go), drives one load
// (idle.go, writes.go, storms.go, reads.go, pods.go, workloads.go) and adds samples to the results (results.go), of which report.go makes the table and the JSON
// file. What must stay true: both sides get the same load from the same client code; what helps the peer is switched on (kubernetes.go says
// which flags); a phase that does not finish in its time reports what was reached; nothing outlives the run.
//
// The modules below this directory (kubernetes, etcd, kwok) only pin what is built.
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
	"time"
)

// The systems that are measured, in the order of the table's columns.
const (
	kubernetes = "kubernetes"
	knarr      = "knarr"      // with hollow nodes in its own process
	knarrKwok  = "knarr-kwok" // with the nodes that the peer has
)

func systems() []string { return []string{kubernetes, knarr, knarrKwok} }

// bench is what every phase works with.
type bench struct {
	knarr   string // the executable
	peers   string // directory of the peers' executables
	dir     string // for data directories
	profile string // where profiles of Knarr go; empty for none
	limit   time.Duration
	quick   bool
	until   time.Time // no phase is repeated that would end later; zero for no such time
	results *results
}

// phase is a part of the comparison that begins with a control plane of its own.
type phase struct {
	name    string
	about   string
	systems []string
	run     func(context.Context, *bench, string) error
}

func phases() []phase {
	both := []string{kubernetes, knarr}
	return []phase{
		{"start", "process start to ready API", both, measureStart},
		{"plane", "a control plane without nodes: memory, idle CPU, writes, lists, watches", both, measurePlane},
		{"storms", "many writers of one object", both, measureStorms},
		{"crds", "1,000 definitions of custom resources, objects with rules", both, measureDefinitions},
		{"pods-100", "20 Deployments on 100 nodes to all Ready", systems(), measurePods100},
		{"pods-1000", "20 Deployments on 1,000 nodes to all Ready", systems(), measurePods1000},
		{"job", "a Job of 10,000 on 100 nodes to its end", systems(), measureJob},
		{"cronjobs", "1,000 CronJobs due in one minute, on 100 nodes", systems(), measureCronJobs},
		{"statefulset", "a StatefulSet of 500 on 100 nodes to all Ready", systems(), measureStatefulSet},
		{"daemonset", "a DaemonSet on 1,000 nodes updated", systems(), measureDaemonSet},
	}
}

func names() []string {
	var out []string
	for _, p := range phases() {
		out = append(out, p.name)
	}
	return out
}

func main() {
	var b bench
	var only, which, from, file, document string
	var runs int
	var budget time.Duration
	var inside bool
	flag.StringVar(&b.knarr, "knarr", "bin/knarr", "the knarr executable")
	flag.StringVar(&b.peers, "peers", "bin/peers", "directory with etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok and kwok-stages.yaml")
	flag.StringVar(&only, "only", "", "comma-separated phases: "+strings.Join(names(), ", "))
	flag.StringVar(&which, "systems", "", "comma-separated systems: "+strings.Join(systems(), ", "))
	flag.StringVar(&file, "json", "peers.json", "where all samples and the machine are written")
	flag.StringVar(&from, "from", "", "comma-separated JSON files of earlier runs whose samples count too; -runs 0 only shows them")
	flag.StringVar(&document, "doc", "", "Markdown file whose table, between two marks, is replaced by the one measured")
	flag.StringVar(&b.profile, "profile", "", "directory for CPU and heap profiles of Knarr")
	flag.DurationVar(&b.limit, "limit", 5*time.Minute, "how long one load may take; what was reached by then is reported")
	flag.IntVar(&runs, "runs", 1, "how often everything is measured; the table shows medians")
	flag.DurationVar(&budget, "budget", 0, "repeat (-runs) only what fits into this time")
	flag.BoolVar(&b.quick, "quick", false, "a tenth of the load, to see that it works")
	flag.BoolVar(&inside, "inside", false, "set by the command itself, once it runs in namespaces of its own")
	flag.Parse()
	if budget > 0 {
		b.until = time.Now().Add(budget)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	var err error
	if inside {
		err = b.run(ctx, list(only), list(which), list(from), runs, file)
		if b.results != nil && document != "" { // also what is there when a part failed
			err = errors.Join(err, b.results.publish(document))
		}
	} else {
		err = isolated(ctx)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// run takes the phases that were asked for and shows the table after each round.
func (b *bench) run(ctx context.Context, only, which, from []string, runs int, file string) error {
	if err := furnish(); err != nil {
		return err
	}
	if err := b.prepare(only, which); err != nil {
		return err
	}
	for _, earlier := range from {
		if err := b.results.read(earlier); err != nil {
			return err
		}
	}
	defer os.RemoveAll(b.dir)
	var failed []error
	for i := range runs {
		for _, p := range phases() {
			if only != nil && !slices.Contains(only, p.name) {
				continue
			}
			for _, system := range p.systems {
				if which != nil && !slices.Contains(which, system) || ctx.Err() != nil {
					continue
				}
				if i > 0 && !b.fits(p.name, system) {
					continue
				}
				if err := b.take(ctx, p, system, i, runs); err != nil {
					fmt.Printf("  not measured: %v\n", err)
					failed = append(failed, fmt.Errorf("%s, %s: %w", p.name, system, err))
				}
				if err := b.results.write(file); err != nil { // what is there so far outlives an interrupt
					return err
				}
			}
		}
	}
	fmt.Print("\n", b.results.table())
	if err := b.results.write(file); err != nil {
		return err
	}
	fmt.Printf("\nAll samples: %s\n", file)
	return errors.Join(append(failed, ctx.Err())...)
}

// fits reports whether a phase that was taken before can be repeated within the budget.
func (b *bench) fits(phase, system string) bool {
	return b.until.IsZero() || time.Now().Add(b.results.lasted(phase, system)).Before(b.until)
}

// prepare checks what was asked for before anything is started.
func (b *bench) prepare(only, which []string) error {
	for _, name := range only {
		if !slices.ContainsFunc(phases(), func(p phase) bool { return p.name == name }) {
			return fmt.Errorf("-only %q: there are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, name := range which {
		if !slices.Contains(systems(), name) {
			return fmt.Errorf("-systems %q: there are %s", name, strings.Join(systems(), ", "))
		}
	}
	for _, path := range []*string{&b.knarr, &b.peers} {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
		if _, err := os.Stat(*path); err != nil {
			return fmt.Errorf("nothing to measure (make bench-peers builds it): %w", err)
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp("/var/tmp", "knarr-peers-"); err != nil {
		return err
	}
	b.results, err = newResults(b.quick)
	return err
}

// take runs one phase for one system and says how much of the machine others had meanwhile.
func (b *bench) take(ctx context.Context, p phase, system string, run, runs int) error {
	fmt.Printf("%s, %s, run %d of %d: %s\n", p.name, system, run+1, runs, p.about)
	before, err := observeMachine()
	if err != nil {
		return err
	}
	failed := p.run(ctx, b, system)
	after, err := observeMachine()
	if err != nil {
		return errors.Join(failed, err)
	}
	b.results.took(p.name, system, before, after)
	return failed
}
