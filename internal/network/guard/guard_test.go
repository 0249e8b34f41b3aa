package guard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/nft/nfttest"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// desk is a guard in a bubble, over a table in memory.
type desk struct {
	t     *testing.T
	api   *counted
	table *nfttest.Table
	guard *Guard
}

// counted is a client whose watches are counted by resource, and whose policies are not heard of until release is closed.
type counted struct {
	client.Client
	pods, namespaces atomic.Int32
	release          chan struct{}
}

func (c *counted) Watch(ctx context.Context, res *api.Resource, opts client.ListOptions) (client.Watcher, error) {
	n := map[*api.Resource]*atomic.Int32{api.Pods: &c.pods, api.Namespaces: &c.namespaces}[res]
	if res == api.NetworkPolicies {
		select {
		case <-c.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w, err := c.Client.Watch(ctx, res, opts)
	if n != nil && err == nil {
		n.Add(1)
		return &countedWatcher{w, n}, nil
	}
	return w, err
}

type countedWatcher struct {
	client.Watcher
	n *atomic.Int32
}

func (w *countedWatcher) Stop() {
	w.n.Add(-1)
	w.Watcher.Stop()
}

var (
	podAddr  = netip.MustParseAddr("10.244.0.5")
	attached = policy.Attachment{Addr: podAddr, Pod: api.Key{Namespace: "default", Name: "server"}}
)

// run runs f beside a guard.
func run(t *testing.T, change func(*Config, *desk), f func(d *desk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{t: t, table: nfttest.New(nft.IPv4), api: &counted{Client: clienttest.New(t), release: make(chan struct{})}}
		cfg := Config{Client: d.api, Kernels: []*Kernel{NewKernel(nft.IPv4, d.table)},
			Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		if change == nil {
			close(d.api.release)
		} else {
			change(&cfg, d)
		}
		d.guard = New(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.guard.Run(ctx) }()
		synctest.Wait()
		f(d)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := d.guard.Attach(t.Context(), attached); !errors.Is(err, errEnded) {
			t.Errorf("a pod that comes after the end: %v", err)
		}
		if err := d.guard.Detach(t.Context(), podAddr); err != nil {
			t.Errorf("a pod that goes after the end: %v", err)
		}
	})
}

// has reports whether the table has an element that begins so.
func (d *desk) has(element string) bool { return strings.Contains(d.table.DumpElements(), element) }

func (d *desk) exists() bool {
	exists, _ := d.table.Exists()
	return exists
}

func (d *desk) pod(name, ip string) {
	d.t.Helper()
	p := clienttest.Create(d.t, d.api, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	if ip == "" {
		return
	}
	_, err := client.Mutate(d.t.Context(), d.api, api.KeyOf(p), "status", func(p *corev1.Pod) bool {
		p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// allow makes a policy that lets pods of an app reach the server.
func (d *desk) allow(name, app string) *networkingv1.NetworkPolicy {
	d.t.Helper()
	peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
	return clienttest.Create(d.t, d.api, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
		Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}}}})
}

func TestRulesAreThereBeforeAttachReturns(t *testing.T) {
	run(t, nil, func(d *desk) {
		d.allow("p", "client")
		d.pod("client", "10.244.1.7")
		time.Sleep(time.Second)
		if err := d.guard.Attach(d.t.Context(), attached); err != nil {
			t.Fatal(err)
		}
		if !d.has("ingress-guarded 10.244.0.5") || !d.has("egress-guarded 10.244.0.5") {
			t.Errorf("a pod that nobody knows yet is open:\n%s", d.table.DumpElements())
		}
		d.pod("server", "")
		time.Sleep(time.Second)
		if got := d.table.DumpElements(); !strings.Contains(got, "10.244.1.7") || !d.has("ingress-guarded 10.244.0.5") || d.has("egress-guarded") {
			t.Errorf("once the pod is known:\n%s", got)
		}
		if err := d.guard.Detach(d.t.Context(), podAddr); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := d.table.DumpElements(); got != "" {
			t.Errorf("once it is gone:\n%s", got)
		}
	})
}

func TestNobodyWatchesPodsWithoutPolicies(t *testing.T) {
	run(t, nil, func(d *desk) {
		<-d.guard.Ready()
		if err := d.guard.Attach(d.t.Context(), attached); err != nil {
			t.Fatal(err)
		}
		watches := func(want int32) {
			t.Helper()
			time.Sleep(time.Second)
			if pods, namespaces := d.api.pods.Load(), d.api.namespaces.Load(); pods != want || namespaces != want || d.exists() != (want > 0) {
				t.Errorf("%d watches of pods, %d of namespaces, a table: %v; want %d", pods, namespaces, d.exists(), want)
			}
		}
		watches(0)
		for range 2 {
			p := d.allow("p", "client")
			watches(1)
			if err := client.Delete[*networkingv1.NetworkPolicy](d.t.Context(), d.api, api.KeyOf(p), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			watches(0)
		}
	})
}

func TestEarlierTableStaysUntilEverythingIsKnown(t *testing.T) {
	earlier := func(cfg *Config, d *desk) {
		cfg.Attached = []policy.Attachment{attached}
		if err := cfg.Kernels[0].Rewrite(policy.Changes{AddChains: []policy.Chain{{Name: "old"}}, AddGuards: []policy.Guard{{Addr: podAddr, Chain: "old"}}}); err != nil {
			d.t.Fatal(err)
		}
	}
	run(t, earlier, func(d *desk) {
		d.allow("p", "client")
		d.pod("server", "")
		time.Sleep(time.Minute)
		if !d.has("jump old") {
			t.Errorf("before policies were heard of:\n%s", d.table.DumpElements())
		}
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Second)
		defer cancel()
		if err := d.guard.Attach(ctx, policy.Attachment{Addr: podAddr.Next(), Pod: api.Key{Namespace: "default", Name: "new"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a pod was let in before policies were heard of: %v", err)
		}
		close(d.api.release)
		<-d.guard.Ready()
		if d.has("jump old") || !d.has("ingress-guarded 10.244.0.5") {
			t.Errorf("once everything is known:\n%s", d.table.DumpElements())
		}
	})
}

func TestDeletedTableAndRefusedTransactions(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	run(t, func(cfg *Config, d *desk) { cfg.Metrics = reg; close(d.api.release) }, func(d *desk) {
		d.allow("p", "client")
		d.pod("server", "")
		if err := d.guard.Attach(d.t.Context(), attached); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		d.table.Delete()
		time.Sleep(time.Second)
		if !d.has("ingress-guarded 10.244.0.5") {
			t.Error("a table that somebody deleted stays away")
		}
		d.table.Fail(errors.New("no memory"))
		d.allow("q", "other")
		if err := d.guard.Attach(d.t.Context(), policy.Attachment{Addr: podAddr.Next(), Pod: attached.Pod}); err == nil {
			t.Error("a pod is let in although its rules could not be written")
		}
		d.table.Fail(nil)
		time.Sleep(2 * retryTime)
		if !d.has("ingress-guarded 10.244.0.6") {
			t.Errorf("after the failure is over:\n%s", d.table.DumpElements())
		}
		if err := reg.Register(NewFigures(d.guard, d.guard.cfg.Kernels[0])); err != nil {
			t.Fatal(err)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.Metric {
				got[f.GetName()] += 1 + m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		if got["knarr_network_policy_revision"] < 3 || got["knarr_network_policy_in_force_since_seconds"] < 2 {
			t.Errorf("since when policies are in force: %v", got)
		}
		if got["knarr_network_policies"] != 3 || got["knarr_network_policy_failures_total"] < 2 || got["knarr_network_policy_dropped_packets_total"] != 1 {
			t.Errorf("figures (each one more than it says): %v", got)
		}
	})
}

// TestSinceWhenAPolicyIsInForce: since the rules had it as it is now, not as it was before, and not where somebody took them away.
func TestSinceWhenAPolicyIsInForce(t *testing.T) {
	run(t, nil, func(d *desk) {
		t := d.t
		p := d.allow("p", "client")
		d.pod("server", "")
		if err := d.guard.Attach(d.t.Context(), attached); err != nil {
			t.Fatal(err)
		}
		key := api.KeyOf(p)
		since := func() time.Time {
			t.Helper()
			time.Sleep(time.Minute)
			r, ok := d.guard.inForce()
			if !ok || len(r.since) != 1 || r.pods[podAddr] != attached.Pod || !slices.Equal(r.guards[guarded{policy.Ingress, podAddr}], []api.Key{key}) {
				t.Fatalf("%v %+v", ok, r)
			}
			return r.since[key]
		}
		first := since()
		if ago := time.Since(first); ago < time.Minute || ago > time.Minute+time.Second {
			t.Errorf("in force since %v ago, want about a minute", ago)
		}
		change := func(f func(p *networkingv1.NetworkPolicy)) int64 {
			t.Helper()
			fresh, err := client.Mutate(t.Context(), d.api, key, "", func(p *networkingv1.NetworkPolicy) bool { f(p); return true })
			if err != nil {
				t.Fatal(err)
			}
			n, _ := strconv.ParseInt(fresh.ResourceVersion, 10, 64)
			return n
		}
		revision := change(func(p *networkingv1.NetworkPolicy) { p.Labels = map[string]string{"a": "b"} })
		if got := since(); !got.Equal(first) {
			t.Errorf("a label makes it in force since %v, before since %v", got, first)
		}
		if r, _ := d.guard.inForce(); r.revision != revision {
			t.Errorf("revision %d is in force, want %d", r.revision, revision)
		}
		change(func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress = nil })
		second := since()
		if !second.After(first) {
			t.Errorf("a changed policy is in force since %v, before since %v", second, first)
		}
		d.table.Delete()
		if third := since(); !third.After(second) {
			t.Errorf("after the table was gone it is in force since %v, before since %v", third, second)
		}
	})
}

func TestDropsAreCountedForThePoliciesOfThePod(t *testing.T) {
	f := NewFigures(nil)
	a, b := api.Key{Namespace: "x", Name: "a"}, api.Key{Namespace: "x", Name: "b"}
	at, other := guarded{policy.Ingress, podAddr}, guarded{policy.Ingress, podAddr.Next()}
	r := report{guards: map[guarded][]api.Key{at: {a, b}, other: {b}}}
	for _, counts := range []map[guarded]uint64{{at: 5, other: 1}, {at: 5, other: 3}, {at: 2, other: 3}} { // the last: counted anew
		f.add(counts, r)
	}
	if got := f.totals; len(got) != 2 || got[about{policy.Ingress, a}] != 7 || got[about{policy.Ingress, b}] != 10 {
		t.Errorf("counted %v, want 7 for a and 10 for b", got)
	}
	delete(r.guards, at)
	f.add(map[guarded]uint64{other: 4}, r)
	if got := f.totals; len(got) != 1 || got[about{policy.Ingress, b}] != 11 {
		t.Errorf("once a guards nobody: %v", got)
	}
}
