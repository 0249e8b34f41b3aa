package balance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/nft/nfttest"
	"github.com/knarr-io/knarr/internal/network/services"
)

// testLayout is that of the node whose Services the tests are about.
func testLayout(f nft.Family) services.Layout {
	if f == nft.IPv6 {
		return services.Layout{Overlay: "kvx", PodCIDR: netip.MustParsePrefix("fd00:244:1::/64"), ClusterCIDR: netip.MustParsePrefix("fd00:244::/32"),
			ServiceCIDR: netip.MustParsePrefix("fd00:96::/112")}
	}
	return services.Layout{Overlay: "kvx", PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16")}
}

// fakeKernel writes to a table in memory and notes its transactions.
type fakeKernel struct {
	*services.Kernel
	table *nfttest.Table

	mu    sync.Mutex
	log   []string // "rewrite 3" or "apply +1 -0", each with the time since the start
	start time.Time
}

func newFakeKernel(f nft.Family) *fakeKernel {
	table := nfttest.New(f)
	return &fakeKernel{Kernel: services.NewKernel(testLayout(f), table), table: table, start: time.Now()}
}

func (k *fakeKernel) Rewrite(c services.Changes) error {
	err := k.Kernel.Rewrite(c)
	if err == nil {
		k.note("rewrite %d", len(c.Add))
	}
	return err
}

func (k *fakeKernel) Apply(c services.Changes) error {
	err := k.Kernel.Apply(c)
	if err == nil {
		k.note("apply +%d -%d", len(c.Add), len(c.Delete))
	}
	return err
}

func (k *fakeKernel) note(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log = append(k.log, fmt.Sprintf("%v: ", time.Since(k.start))+fmt.Sprintf(format, args...))
}

// lines returns the log and empties it.
func (k *fakeKernel) lines() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := strings.Join(k.log, "\n")
	k.log = nil
	return out
}

// run runs f beside a balancer in a bubble.
func run(t *testing.T, change func(*Config, *fakeKernel), f func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer)) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel(nft.IPv4)
		c := clienttest.New(t)
		cfg := Config{Client: c, Kernels: []Kernel{k}, Node: services.Node{Name: "node-1"}, Window: 10 * time.Millisecond,
			DeleteFlows: func(nft.Family, []services.FlowFilter) error { return nil }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		if change != nil {
			change(&cfg, k)
		}
		b := New(cfg)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		f(t, c, k, b)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func createService(t *testing.T, c *client.Local, i int) *corev1.Service {
	t.Helper()
	return clienttest.Create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("svc-", i)},
		Spec: corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.1.%d", i+1), Ports: []corev1.ServicePort{{Port: 80}}}})
}

func createSlice(t *testing.T, c *client.Local, i int) {
	t.Helper()
	port := int32(8080)
	name := ""
	clienttest.Create(t, c, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("svc-%d-a", i),
		Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprint("svc-", i)}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{fmt.Sprintf("10.244.1.%d", i+1)}}}})
}

func TestFirstChangeAtOnceBurstInOneTransaction(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		<-b.Ready()
		time.Sleep(time.Second)
		k.lines()
		k.start = time.Now()
		createService(t, c, 0)
		synctest.Wait()
		if got := k.lines(); got != "0s: apply +1 -0" {
			t.Errorf("a single change: %q, want it written at once", got)
		}
		for i := 1; i < 100; i++ {
			createService(t, c, i)
			createSlice(t, c, i)
			synctest.Wait()
		}
		if got := k.lines(); got != "" {
			t.Errorf("within the window: %q", got)
		}
		time.Sleep(time.Second)
		if got := k.lines(); got != "10ms: apply +198 -0" {
			t.Errorf("after the window: %q, want one transaction", got)
		}
	})
}

func TestNothingHappensWhenNothingChanges(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		createService(t, c, 0)
		createSlice(t, c, 0)
		time.Sleep(time.Second)
		k.lines()
		want := "endpoints 10.96.1.1 . tcp . 80 . 0x0 : 10.244.1.1 . 8080\nfrontends 10.96.1.1 . tcp . 80 : goto pick-1"
		if got := k.table.DumpElements(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		_, err := client.Mutate(t.Context(), c, api.Key{Namespace: "default", Name: "svc-0"}, "", func(s *corev1.Service) bool {
			s.Annotations = map[string]string{"a": "b"}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := k.lines(); got != "" {
			t.Errorf("an annotation: %q, want no transaction", got)
		}
		if err := client.Delete[*corev1.Service](t.Context(), c, api.Key{Namespace: "default", Name: "svc-0"}, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := k.table.DumpElements(); got != "" {
			t.Errorf("after the Service is gone:\n%s", got)
		}
	})
}

func TestFailureIsRetriedWithEverything(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		time.Sleep(time.Second)
		k.table.Fail(errors.New("no memory"))
		createService(t, c, 0)
		synctest.Wait()
		if got := k.table.DumpElements(); got != "" {
			t.Errorf("although transactions fail: %s", got)
		}
		k.table.Fail(nil)
		time.Sleep(2 * retryTime)
		if got := k.table.DumpElements(); got != "rejects 10.96.1.1 . tcp . 80" {
			t.Errorf("after the failure is over: %q", got)
		}
	})
}

func TestDeletedTableIsWrittenAnew(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		createService(t, c, 0)
		time.Sleep(time.Second)
		k.table.Delete()
		time.Sleep(time.Second)
		if got := k.table.DumpElements(); got != "rejects 10.96.1.1 . tcp . 80" {
			t.Errorf("after the table was deleted: %q", got)
		}
	})
}

func TestEarlierTableStaysUntilEverythingIsKnown(t *testing.T) {
	stuck := make(chan struct{})
	change := func(cfg *Config, k *fakeKernel) {
		stuck = make(chan struct{})
		if err := k.Kernel.Rewrite(services.Changes{}); err != nil {
			t.Fatal(err)
		}
		cfg.Client = &lateClient{Client: cfg.Client, release: stuck}
	}
	run(t, change, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		createService(t, c, 0)
		time.Sleep(time.Minute)
		if got := k.lines(); got != "" {
			t.Errorf("before EndpointSlices are known: %q", got)
		}
		select {
		case <-b.Ready():
			t.Error("ready before EndpointSlices are known")
		default:
		}
		close(stuck)
		synctest.Wait()
		<-b.Ready()
		if got := k.lines(); got != "1m0s: rewrite 1" {
			t.Errorf("once everything is known: %q", got)
		}
	})
}

// lateClient does not hear of EndpointSlices until release is closed.
type lateClient struct {
	client.Client
	release chan struct{}
}

func (l *lateClient) Watch(ctx context.Context, res *api.Resource, opts client.ListOptions) (client.Watcher, error) {
	if res == api.EndpointSlices {
		select {
		case <-l.release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return l.Client.Watch(ctx, res, opts)
}

func TestHostPortsAreWrittenBeforeTheyAreSaidToBe(t *testing.T) {
	key := services.Key{Set: services.AnyHostPorts, Proto: services.TCP, Port: 8080}
	elements := []services.Element{{Key: key, Value: services.Value{Addr: netip.MustParseAddr("10.244.0.5"), Port: 80}}}
	change := func(cfg *Config, _ *fakeKernel) {
		cfg.HostPorts = map[string][]services.Element{"old/eth0": {{Key: services.Key{Set: services.AnyHostPorts, Proto: services.TCP, Port: 1}, Value: elements[0].Value}}}
	}
	run(t, change, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		if got := k.table.DumpElements(); got != "any-host-ports tcp . 1 : 10.244.0.5 . 80" {
			t.Errorf("host ports of an earlier run: %q", got)
		}
		for _, tc := range []struct {
			elements []services.Element
			want     bool
		}{{elements, true}, {nil, false}, {elements, true}} {
			if err := b.SetHostPorts(t.Context(), "sandbox/eth0", tc.elements); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(k.table.DumpElements(), "any-host-ports tcp . 8080 : 10.244.0.5 . 80"); got != tc.want {
				t.Errorf("after SetHostPorts returned: %v, want %v", got, tc.want)
			}
		}
	})
}

func TestEachFamilyHasATable(t *testing.T) {
	var six *fakeKernel
	change := func(cfg *Config, _ *fakeKernel) {
		six = newFakeKernel(nft.IPv6)
		cfg.Kernels = append(cfg.Kernels, six)
	}
	run(t, change, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		createService(t, c, 0)
		err := b.SetHostPorts(t.Context(), "sandbox/eth0", []services.Element{
			{Key: services.Key{Set: services.AnyHostPorts, Proto: services.TCP, Port: 1}, Value: services.Value{Addr: netip.MustParseAddr("10.244.0.5"), Port: 80}},
			{Key: services.Key{Set: services.AnyHostPorts, Proto: services.TCP, Port: 1}, Value: services.Value{Addr: netip.MustParseAddr("fd00:244:1::5"), Port: 80}}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, want := k.table.DumpElements(), "any-host-ports tcp . 1 : 10.244.0.5 . 80\nrejects 10.96.1.1 . tcp . 80"; got != want {
			t.Errorf("IPv4: got\n%s\nwant\n%s", got, want)
		}
		if got, want := six.table.DumpElements(), "any-host-ports tcp . 1 : fd00:244:1::5 . 80"; got != want {
			t.Errorf("IPv6: got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestTheNodesZoneDecidesWhichHintsAreForIt(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		node := clienttest.Create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{corev1.LabelTopologyZone: "a"}}})
		createService(t, c, 0)
		port, name := int32(8080), ""
		zone := func(addr, zone string) discoveryv1.Endpoint {
			return discoveryv1.Endpoint{Addresses: []string{addr}, Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: zone}}}}
		}
		clienttest.Create(t, c, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc-0-a",
			Labels: map[string]string{discoveryv1.LabelServiceName: "svc-0"}}, AddressType: discoveryv1.AddressTypeIPv4,
			Ports:     []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{zone("10.244.2.1", "a"), zone("10.244.3.1", "b")}})
		for z, want := range map[string]string{"a": "10.244.2.1", "b": "10.244.3.1"} {
			if _, err := client.Mutate(t.Context(), c, api.KeyOf(node), "", func(n *corev1.Node) bool { n.Labels[corev1.LabelTopologyZone] = z; return true }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			want = "endpoints 10.96.1.1 . tcp . 80 . 0x0 : " + want + " . 8080\nfrontends 10.96.1.1 . tcp . 80 : goto pick-1"
			if got := k.table.DumpElements(); got != want {
				t.Errorf("in zone %s: got\n%s\nwant\n%s", z, got, want)
			}
		}
	})
}

func TestMetricsAreKubeProxys(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	run(t, func(cfg *Config, _ *fakeKernel) { cfg.Metrics = reg }, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		<-b.Ready()
		local := corev1.ServiceInternalTrafficPolicyLocal
		clienttest.Create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc-0"},
			Spec: corev1.ServiceSpec{ClusterIP: "10.96.1.1", Ports: []corev1.ServicePort{{Port: 80}}, InternalTrafficPolicy: &local}})
		time.Sleep(time.Second)
		at := time.Now().Add(-700 * time.Millisecond).Format(time.RFC3339Nano)
		port, name, node := int32(8080), "", "node-9"
		clienttest.Create(t, c, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "svc-0-a",
			Annotations: map[string]string{corev1.EndpointsLastChangeTriggerTime: at}, Labels: map[string]string{discoveryv1.LabelServiceName: "svc-0"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.1"}, NodeName: &node}}})
		time.Sleep(time.Second)
		k.table.Fail(errors.New("no memory"))
		createService(t, c, 1)
		time.Sleep(retryTime / 2)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.Metric {
				labels := ""
				for _, l := range m.Label {
					labels += " " + l.GetValue()
				}
				v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				got[strings.TrimPrefix(f.GetName(), "kubeproxy_")+labels] = v
				if f.GetName() == "kubeproxy_network_programming_duration_seconds" && math.Abs(m.GetHistogram().GetSampleSum()-0.7) > 0.02 {
					t.Errorf("from the change to the kernel: %v s, want 0.7", m.GetHistogram().GetSampleSum())
				}
			}
		}
		for series, want := range map[string]float64{
			"sync_full_proxy_rules_duration_seconds IPv4":             1, // the one that failed
			"network_programming_duration_seconds IPv4":               1,
			"sync_proxy_rules_service_changes_total":                  2,
			"sync_proxy_rules_service_changes_pending":                1,
			"sync_proxy_rules_endpoint_changes_total":                 1,
			"sync_proxy_rules_endpoint_changes_pending":               0,
			"sync_proxy_rules_no_local_endpoints_total IPv4 internal": 1,
			"sync_proxy_rules_no_local_endpoints_total IPv4 external": 0,
			"sync_proxy_rules_nftables_sync_failures_total IPv4":      1,
			"sync_proxy_rules_last_queued_timestamp_seconds IPv4":     float64(time.Now().Unix()),
			"sync_proxy_rules_last_timestamp_seconds IPv4":            float64(time.Now().Unix() - 1),
		} {
			if v, ok := got[series]; !ok || math.Trunc(v) != want {
				t.Errorf("%s is %v, want %v", series, v, want)
			}
		}
		if all, parts := got["sync_proxy_rules_duration_seconds IPv4"], got["sync_partial_proxy_rules_duration_seconds IPv4"]; parts < 2 || all != parts+1 {
			t.Errorf("%v steps, %v of them partial", all, parts)
		}
		if t.Failed() {
			t.Logf("%v", got)
		}
	})
}
