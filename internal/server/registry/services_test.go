package registry_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

func service(name string, change func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "web", Port: 80}, {Name: "tls", Port: 443}},
		},
	}
	change(&svc.Spec)
	return svc
}

// small returns a cluster with room for few Services: addresses 10.0.0.1-14, node ports 30000-30007.
func small(t testing.TB) (*client.Local, *registry.Registry) {
	t.Helper()
	r := registry.New(registry.Config{
		Store: clienttest.RunStore(t, store.NewMem()), ServiceCIDR: netip.MustParsePrefix("10.0.0.0/28"), NodePorts: [2]int32{30000, 30007},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return client.NewLocal(r), r
}

// taken returns what is taken of addresses and node ports: by IPAddress objects, and by reservations, which are tried out.
func taken(t *testing.T, r *registry.Registry) (out []string) {
	t.Helper()
	r.Reader().List(api.IPAddresses, "", func(o api.Object) bool { out = append(out, o.GetName()); return true })
	for port := 30000; port <= 30007; port++ {
		for _, protocol := range []string{"tcp", "udp"} {
			m := store.Mutation{Key: fmt.Sprintf("/registry/ranges/servicenodeports/%s/%d", protocol, port), Raw: []byte("test"), If: 0}
			if _, err := r.Store().Commit(t.Context(), m); err != nil {
				out = append(out, fmt.Sprintf("%s/%d", protocol, port))
				continue
			}
			m.Raw, m.If = nil, store.Any
			if _, err := r.Store().Commit(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

// has returns what a Service says it has.
func has(svc *corev1.Service) (out []string) {
	for _, ip := range svc.Spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			out = append(out, ip)
		}
	}
	var ports []string
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			ports = append(ports, fmt.Sprintf("%s/%d", strings.ToLower(string(p.Protocol)), p.NodePort))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		ports = append(ports, fmt.Sprintf("tcp/%d", p))
	}
	slices.SortFunc(ports, func(a, b string) int { return strings.Compare(a[4:]+a, b[4:]+b) })
	return append(out, ports...)
}

// specs are the shapes that a Service can have.
var specs = map[string]func(*corev1.ServiceSpec){
	"ClusterIP":    func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeClusterIP },
	"NodePort":     func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort },
	"LoadBalancer": func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeLoadBalancer },
	"local LoadBalancer": func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	},
	"LoadBalancer without node ports": func(s *corev1.ServiceSpec) {
		s.Type, s.AllocateLoadBalancerNodePorts = corev1.ServiceTypeLoadBalancer, ptr.To(false)
	},
	"ExternalName": func(s *corev1.ServiceSpec) {
		s.Type, s.ExternalName, s.Selector = corev1.ServiceTypeExternalName, "example.com", nil
	},
}

// wants is how many addresses and ports each shape has.
var wants = map[string][2]int{
	"ClusterIP": {1, 0}, "NodePort": {1, 2}, "LoadBalancer": {1, 2}, "local LoadBalancer": {1, 3}, "LoadBalancer without node ports": {1, 0}, "ExternalName": {0, 0},
}

// TestServiceTypesChange turns each shape into each other one, from a manifest that names no address or port and from the stored object.
// What is taken is always exactly what the Service says it has.
func TestServiceTypesChange(t *testing.T) {
	for from := range specs {
		for to := range specs {
			for _, whole := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s to %s, whole %v", from, to, whole), func(t *testing.T) {
					c, r := small(t)
					a := clienttest.Create(t, c, service("a", specs[from]))
					check := func(svc *corev1.Service, shape string, want [2]int) {
						t.Helper()
						if got, want := taken(t, r), has(svc); !slices.Equal(got, want) {
							t.Errorf("%s has %v, taken are %v", shape, want, got)
						}
						ips := len(svc.Spec.ClusterIPs)
						if n := [2]int{ips, len(has(svc)) - ips}; n != want {
							t.Errorf("%s has %d addresses and %d ports, want %v: %+v", shape, n[0], n[1], want, svc.Spec)
						}
					}
					check(a, from, wants[from])
					next := service("a", specs[to])
					next.ResourceVersion = a.ResourceVersion
					if whole {
						next = a.DeepCopy()
						next.Spec.ExternalName, next.Spec.ExternalTrafficPolicy, next.Spec.AllocateLoadBalancerNodePorts = "", "", nil
						specs[to](&next.Spec)
					}
					out, err := c.Update(t.Context(), next, "")
					if err != nil {
						t.Fatal(err)
					}
					b := out.(*corev1.Service)
					want := wants[to]
					if to == "LoadBalancer without node ports" && wants[from][1] > 0 && whole {
						want[1] = 2 // what is asked for is kept
					}
					check(b, to, want)
					if wants[from][0] == 1 && wants[to][0] == 1 && b.Spec.ClusterIP != a.Spec.ClusterIP {
						t.Errorf("the cluster IP changed from %s to %s", a.Spec.ClusterIP, b.Spec.ClusterIP)
					}
					if wants[from][1] >= 2 && want[1] >= 2 && b.Spec.Ports[1].NodePort != a.Spec.Ports[1].NodePort {
						t.Error("a node port changed")
					}
					if err := client.Delete[*corev1.Service](t.Context(), c, api.KeyOf(a), metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
					if got := taken(t, r); len(got) > 0 {
						t.Errorf("still taken after the deletion: %v", got)
					}
				})
			}
		}
	}
}

func TestServicesAreRefused(t *testing.T) {
	c, r := small(t)
	clienttest.Create(t, c, service("taken", func(s *corev1.ServiceSpec) {
		s.Type, s.ClusterIP, s.Ports[0].NodePort, s.Ports[1].NodePort = corev1.ServiceTypeNodePort, "10.0.0.5", 30005, 30006
	}))
	before := taken(t, r)
	for want, change := range map[string]func(*corev1.ServiceSpec){
		`spec.clusterIPs: Invalid value: ["10.0.0.5"]: failed to allocate IP 10.0.0.5: provided IP is already allocated`: func(s *corev1.ServiceSpec) { s.ClusterIP = "10.0.0.5" },
		`the provided IP is not in the valid range. The range of valid IPs is 10.0.0.0/28`:                               func(s *corev1.ServiceSpec) { s.ClusterIP = "10.0.1.5" },
		`spec.ports[1].nodePort: Invalid value: 30005: provided port is already allocated`: func(s *corev1.ServiceSpec) {
			s.Type, s.Ports[1].NodePort = corev1.ServiceTypeNodePort, 30005
		},
		`The range of valid ports is 30000-30007`:                 func(s *corev1.ServiceSpec) { s.Type, s.Ports[0].NodePort = corev1.ServiceTypeNodePort, 80 },
		`spec.ports[0].nodePort: Forbidden: may not be used when`: func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 30001 },
		`spec.ports[1].nodePort: Duplicate value`: func(s *corev1.ServiceSpec) {
			s.Type, s.Ports[0].NodePort, s.Ports[1].NodePort = corev1.ServiceTypeNodePort, 30001, 30001
		},
		`spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured`: func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack) },
		`spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster`:              func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} },
		`spec.clusterIPs[1]: Invalid value: "fd00::1": its family is not configured`:             func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "10.0.0.6", []string{"10.0.0.6", "fd00::1"} },
		`spec.clusterIPs: Invalid value: ["10.0.0.6"]: first value must match ` + "`clusterIP`":  func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "10.0.0.7", []string{"10.0.0.6"} },
		`spec.type: Unsupported value: "Pigeon"`:                                                 func(s *corev1.ServiceSpec) { s.Type = "Pigeon" },
		`spec.healthCheckNodePort: Invalid value: 30001`:                                         func(s *corev1.ServiceSpec) { s.HealthCheckNodePort = 30001 },
	} {
		if _, err := c.Create(t.Context(), service("b", change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if after := taken(t, r); !slices.Equal(before, after) {
		t.Errorf("refused Services took %v, had %v", after, before)
	}
	if _, _, err := r.Update(t.Context(), api.Services, key("taken"), "", func(o api.Object) (api.Object, error) {
		svc := o.DeepCopyObject().(*corev1.Service)
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "10.0.0.6", []string{"10.0.0.6"}
		return svc, nil
	}, registry.UpdateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "may not change once set") {
		t.Errorf("another cluster IP: %v", err)
	}
}

func TestHeadlessAndDryRunServices(t *testing.T) {
	c, r := small(t)
	h := clienttest.Create(t, c, service("headless", func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }))
	if !slices.Equal(h.Spec.ClusterIPs, []string{corev1.ClusterIPNone}) || len(h.Spec.IPFamilies) != 1 {
		t.Errorf("a headless Service: %+v", h.Spec)
	}
	any := clienttest.Create(t, c, service("any", func(s *corev1.ServiceSpec) {
		s.ClusterIP, s.Selector, s.IPFamilyPolicy = corev1.ClusterIPNone, nil, ptr.To(corev1.IPFamilyPolicyRequireDualStack)
		s.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	}))
	if len(any.Spec.IPFamilies) != 2 {
		t.Errorf("a headless Service without selector: %+v", any.Spec)
	}
	dry, err := r.Create(t.Context(), api.Services, service("dry", specs["NodePort"]), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || dry.(*corev1.Service).Spec.Ports[0].NodePort == 0 {
		t.Errorf("a dry run: %+v, %v", dry, err)
	}
	if got := taken(t, r); len(got) > 0 {
		t.Errorf("taken: %v", got)
	}
	dns := clienttest.Create(t, c, service("dns", func(s *corev1.ServiceSpec) {
		s.Type = corev1.ServiceTypeNodePort
		s.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: "UDP"}, {Name: "dns-tcp", Port: 53, Protocol: "TCP"}}
	}))
	if dns.Spec.Ports[0].NodePort != dns.Spec.Ports[1].NodePort {
		t.Errorf("one port over two protocols has node ports %d and %d", dns.Spec.Ports[0].NodePort, dns.Spec.Ports[1].NodePort)
	}
	a := clienttest.Create(t, c, service("a", specs["NodePort"]))
	before := taken(t, r)
	dryUpdate := registry.UpdateOptions{UpdateOptions: metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}}
	out, _, err := r.Update(t.Context(), api.Services, api.KeyOf(a), "", func(o api.Object) (api.Object, error) {
		svc := o.DeepCopyObject().(*corev1.Service)
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "more", Port: 1})
		return svc, nil
	}, dryUpdate)
	if err != nil || out.(*corev1.Service).Spec.Ports[2].NodePort == 0 || !slices.Equal(taken(t, r), before) {
		t.Errorf("a dry run of an update: %+v, %v, taken %v", out, err, taken(t, r))
	}
}

// TestServersShareTheirAddresses lets the front doors of three servers over one backend create Services until there is no room. None gets what
// another has, and all that there is gets used.
func TestServersShareTheirAddresses(t *testing.T) {
	backend := store.NewMem()
	var doors []*registry.Registry
	for range 3 {
		s := clienttest.RunStore(t, backend)
		doors = append(doors, registry.New(registry.Config{
			Store: s, ServiceCIDR: netip.MustParsePrefix("10.0.0.0/28"), NodePorts: [2]int32{30000, 30019}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		}))
	}
	var mu sync.Mutex
	full := 0
	var wg sync.WaitGroup
	for i := range 18 {
		wg.Go(func() {
			svc := service(fmt.Sprint("s", i), specs["NodePort"])
			svc.Spec.Ports = svc.Spec.Ports[:1]
			_, err := doors[i%3].Create(t.Context(), api.Services, svc, metav1.CreateOptions{})
			if err != nil && strings.Contains(err.Error(), "range 10.0.0.0/28 is full") {
				mu.Lock()
				full++
				mu.Unlock()
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	n := 0
	if err := doors[0].Store().Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	doors[0].Reader().List(api.Services, "", func(o api.Object) bool {
		n++
		for _, k := range has(o.(*corev1.Service)) {
			if seen[k] {
				t.Errorf("%s is given twice", k)
			}
			seen[k] = true
		}
		return true
	})
	if n != 14 || full != 4 {
		t.Errorf("%d Services and %d refusals, want 14 and 4", n, full)
	}
	ips := 0
	doors[0].Reader().List(api.IPAddresses, "", func(o api.Object) bool {
		ips++
		if ref := o.(*networkingv1.IPAddress).Spec.ParentRef; ref == nil || !strings.HasPrefix(ref.Name, "s") {
			t.Errorf("%s belongs to %+v", o.GetName(), ref)
		}
		return true
	})
	if ips != 14 {
		t.Errorf("%d addresses", ips)
	}
}

func TestAddressesComeFromTheNextRangeWhenOneIsFull(t *testing.T) {
	s := clienttest.RunStore(t, store.NewMem())
	r := registry.New(registry.Config{Store: s, ServiceCIDR: netip.MustParsePrefix("10.0.0.0/29"), Log: slog.New(slog.DiscardHandler)})
	c := client.NewLocal(r)
	further := clienttest.Create(t, c, &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "further"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.9.0.0/29"}}})
	given := map[string]int{}
	make := func(from, to int) (err error) {
		for i := from; i < to && err == nil; i++ {
			var o api.Object
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("s", i)}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
			if o, err = c.Create(t.Context(), svc); err == nil {
				given[o.(*corev1.Service).Spec.ClusterIP[:5]]++
			}
		}
		return err
	}
	if err := make(0, 7); err == nil || !strings.Contains(err.Error(), "range 10.0.0.0/29 is full") || given["10.0."] != 6 {
		t.Errorf("before the further range is ready: %v, %v", given, err)
	}
	if _, err := client.Mutate(t.Context(), c, api.KeyOf(further), "status", func(o *networkingv1.ServiceCIDR) bool {
		o.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Tested", LastTransitionTime: metav1.Now()}}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if err := make(6, 13); err == nil || !strings.Contains(err.Error(), "range 10.0.0.0/29, 10.9.0.0/29 is full") || given["10.9."] != 6 {
		t.Errorf("with it: %v, %v", given, err)
	}
}
