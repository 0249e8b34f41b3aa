package balance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/network/services"
)

// fakeKernel is a kernel in memory that notes its transactions.
type fakeKernel struct {
	mu       sync.Mutex
	exists   bool
	elements map[services.Key]services.Value
	log      []string // "rewrite 3" or "apply +1 -0", each with the time since the start
	start    time.Time
	fail     error // of the next transactions
	deleted  func()
}

func (k *fakeKernel) Exists() (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.exists, nil
}

func (k *fakeKernel) Rewrite(c services.Changes) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	k.exists, k.elements = true, map[services.Key]services.Value{}
	for _, e := range c.Add {
		k.elements[e.Key] = e.Value
	}
	k.note("rewrite %d", len(c.Add))
	return nil
}

func (k *fakeKernel) Apply(c services.Changes) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.exists {
		return errors.New("no such table")
	}
	if k.fail != nil {
		return k.fail
	}
	for _, e := range c.Delete {
		delete(k.elements, e.Key)
	}
	for _, e := range c.Add {
		k.elements[e.Key] = e.Value
	}
	k.note("apply +%d -%d", len(c.Add), len(c.Delete))
	return nil
}

func (k *fakeKernel) note(format string, args ...any) {
	k.log = append(k.log, fmt.Sprintf("%v: ", time.Since(k.start))+fmt.Sprintf(format, args...))
}

func (k *fakeKernel) Affinity() ([]services.Remembered, error) { return nil, nil }
func (k *fakeKernel) Forget([]services.Remembered) error       { return nil }
func (k *fakeKernel) Watch(ctx context.Context, deleted func()) error {
	k.mu.Lock()
	k.deleted = deleted
	k.mu.Unlock()
	<-ctx.Done()
	return nil
}

// lines returns the log and empties it.
func (k *fakeKernel) lines() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := strings.Join(k.log, "\n")
	k.log = nil
	return out
}

// elementsText returns the kernel's elements, one a line.
func (k *fakeKernel) elementsText() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for key, v := range k.elements {
		out = append(out, services.Element{Key: key, Value: v}.String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// run runs f beside a balancer in a bubble.
func run(t *testing.T, change func(*Config, *fakeKernel), f func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer)) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{start: time.Now()}
		c := clienttest.New(t)
		cfg := Config{Client: c, Kernel: k, Node: services.Node{Name: "node-1"}, Window: 10 * time.Millisecond,
			DeleteFlows: func([]services.FlowFilter) error { return nil }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
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
		want := "endpoints 10.96.1.1 tcp 80 slot 0 -> 10.244.1.1:8080\nfrontends 10.96.1.1 tcp 80 -> pick-1"
		if got := k.elementsText(); got != want {
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
		if got := k.elementsText(); got != "" {
			t.Errorf("after the Service is gone:\n%s", got)
		}
	})
}

func TestFailureIsRetriedWithEverything(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		time.Sleep(time.Second)
		k.mu.Lock()
		k.fail = errors.New("no memory")
		k.mu.Unlock()
		createService(t, c, 0)
		synctest.Wait()
		if got := k.elementsText(); got != "" {
			t.Errorf("although transactions fail: %s", got)
		}
		k.mu.Lock()
		k.fail = nil
		k.mu.Unlock()
		time.Sleep(2 * retryTime)
		if got := k.elementsText(); got != "rejects 10.96.1.1 tcp 80" {
			t.Errorf("after the failure is over: %q", got)
		}
	})
}

func TestDeletedTableIsWrittenAnew(t *testing.T) {
	run(t, nil, func(t *testing.T, c *client.Local, k *fakeKernel, b *Balancer) {
		createService(t, c, 0)
		time.Sleep(time.Second)
		k.mu.Lock()
		k.exists, k.elements = false, nil
		k.mu.Unlock()
		k.deleted()
		time.Sleep(time.Second)
		if got := k.elementsText(); got != "rejects 10.96.1.1 tcp 80" {
			t.Errorf("after the table was deleted: %q", got)
		}
	})
}

func TestEarlierTableStaysUntilEverythingIsKnown(t *testing.T) {
	stuck := make(chan struct{})
	change := func(cfg *Config, k *fakeKernel) {
		stuck = make(chan struct{})
		k.exists = true
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
		if got := k.elementsText(); got != "any-host-ports tcp 1 -> 10.244.0.5:80" {
			t.Errorf("host ports of an earlier run: %q", got)
		}
		for _, tc := range []struct {
			elements []services.Element
			want     bool
		}{{elements, true}, {nil, false}, {elements, true}} {
			if err := b.SetHostPorts(t.Context(), "sandbox/eth0", tc.elements); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(k.elementsText(), "any-host-ports tcp 8080 -> 10.244.0.5:80"); got != tc.want {
				t.Errorf("after SetHostPorts returned: %v, want %v", got, tc.want)
			}
		}
	})
}
