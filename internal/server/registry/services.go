package registry

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// allocationTries is how often a Service's address or port is drawn anew because another server took it.
const allocationTries = 16

// serviceAllocator gives Services their cluster IPs and node ports. What is taken stands in the store: an IPAddress object
// (KEP-1880) for each address, a reservation key for each port, written and removed in the same transaction as the Service, so
// that two servers can never give out the same one and nothing has to be repaired afterwards.
type serviceAllocator struct {
	registry  *Registry
	cidr      netip.Prefix
	portRange [2]int32

	mu   sync.Mutex
	busy map[string]bool // drawn by a write under way in this process: addresses and PROTOCOL/PORT
}

func newServiceAllocator(r *Registry, cidr netip.Prefix, ports [2]int32) *serviceAllocator {
	return &serviceAllocator{registry: r, cidr: cidr, portRange: ports, busy: map[string]bool{}}
}

// nodePortsOf returns the PROTOCOL/PORT of each node port of a Service.
func nodePortsOf(svc *corev1.Service) []string {
	var out []string
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, string(p.Protocol)+"/"+strconv.Itoa(int(p.NodePort)))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, "TCP/"+strconv.Itoa(int(p)))
	}
	return out
}

// addressesOf returns the allocated cluster IPs of a Service.
func addressesOf(svc *corev1.Service) []string {
	var out []string
	for _, ip := range svc.Spec.ClusterIPs {
		if ip != corev1.ClusterIPNone && ip != "" {
			out = append(out, ip)
		}
	}
	return out
}

// allocate fills in the addresses and ports that obj, a Service, needs and returns the mutations that take them (and give back those
// that old had and obj has no more). undo must be called if these are not committed because of a conflict. Other resources need
// nothing.
func (a *serviceAllocator) allocate(res *api.Resource, obj, old api.Object, dryRun bool) (_ []store.Mutation, undo func(), _ error) {
	nothing := func() {}
	svc, ok := obj.(*corev1.Service)
	if !ok || res != api.Services {
		return nil, nothing, nil
	}
	var oldSvc *corev1.Service
	if old != nil {
		oldSvc = old.(*corev1.Service)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.busy) // the copy knows what committed writes took; a racing write loses its transaction and draws again
	draft := &allocation{serviceAllocator: a, svc: svc, old: oldSvc}
	draft.families()
	if err := draft.addresses(); err != nil {
		draft.undo()
		return nil, nil, err
	}
	if err := draft.ports(); err != nil {
		draft.undo()
		return nil, nil, err
	}
	if dryRun {
		return nil, nothing, nil
	}
	return append(draft.take, draft.giveBack()...), draft.undo, nil
}

// release returns the mutations that give back what a Service that is removed had.
func (a *serviceAllocator) release(res *api.Resource, obj api.Object) []store.Mutation {
	svc, ok := obj.(*corev1.Service)
	if !ok || res != api.Services {
		return nil
	}
	return (&allocation{serviceAllocator: a, svc: &corev1.Service{}, old: svc}).giveBack()
}

// allocation is one Service being given what it needs.
type allocation struct {
	*serviceAllocator
	svc, old *corev1.Service
	take     []store.Mutation
	undos    []func()
}

func (d *allocation) undo() {
	for _, f := range d.undos {
		f()
	}
}

// families defaults the IP family fields (KEP-563) for a cluster with one family.
func (d *allocation) families() {
	spec := &d.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	family := corev1.IPv4Protocol
	if d.cidr.Addr().Is6() {
		family = corev1.IPv6Protocol
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{family}
	}
	if spec.IPFamilyPolicy == nil {
		single := corev1.IPFamilyPolicySingleStack
		spec.IPFamilyPolicy = &single
	}
}

func (d *allocation) addresses() error {
	spec := &d.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName || spec.ClusterIP == corev1.ClusterIPNone {
		if spec.ClusterIP == corev1.ClusterIPNone && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{corev1.ClusterIPNone}
		}
		return nil
	}
	path := field.NewPath("spec", "clusterIPs")
	if spec.IPFamilyPolicy != nil && *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), *spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services")})
	}
	had := map[string]bool{}
	if d.old != nil {
		for _, ip := range addressesOf(d.old) {
			had[ip] = true
		}
	}
	if spec.ClusterIP == "" {
		ip, ok := d.drawAddress()
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: range %s is full", d.cidr))
		}
		d.setClusterIP(ip)
	} else {
		if len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
		if !had[spec.ClusterIP] {
			ip, err := netip.ParseAddr(spec.ClusterIP)
			switch {
			case err != nil || !d.cidr.Contains(ip):
				return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: the provided IP is not in the valid range. The range of valid IPs is %s", spec.ClusterIP, d.cidr))})
			case d.taken(ip):
				return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", spec.ClusterIP))})
			}
		}
	}
	for _, ip := range addressesOf(d.svc) {
		if !had[ip] {
			d.takeAddress(ip)
		}
	}
	return nil
}

func (d *allocation) setClusterIP(ip netip.Addr) {
	spec := &d.svc.Spec
	spec.ClusterIP, spec.ClusterIPs = ip.String(), []string{ip.String()}
	d.undos = append(d.undos, func() { spec.ClusterIP, spec.ClusterIPs = "", nil })
}

func (d *allocation) taken(ip netip.Addr) bool {
	if d.busy[ip.String()] {
		return true
	}
	_, taken := d.registry.table(api.IPAddresses).Get(ip.String())
	return taken
}

// drawAddress picks a free address at random, from the upper part of the range first: the lower band is left for addresses that
// users choose (KEP-3070).
func (d *allocation) drawAddress() (netip.Addr, bool) {
	bits := min(d.cidr.Addr().BitLen()-d.cidr.Bits(), 20)
	size := 1 << bits
	band := min(max(16, size/16), 256)
	if band >= size {
		band = 0
	}
	base := d.cidr.Masked().Addr()
	last := size - 2 // the last address of an IPv4 range is its broadcast address
	scan := func(first, last int) (netip.Addr, bool) {
		n := last - first + 1
		if n <= 0 {
			return netip.Addr{}, false
		}
		for i, start := 0, rand.IntN(n); i < n; i++ {
			if ip := addOffset(base, first+(start+i)%n); !d.taken(ip) {
				return ip, true
			}
		}
		return netip.Addr{}, false
	}
	if ip, ok := scan(max(1, band), last); ok {
		return ip, true
	}
	return scan(1, band-1)
}

func addOffset(base netip.Addr, n int) netip.Addr {
	b := base.AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	out, _ := netip.AddrFromSlice(b) // as long as base's slice, which is valid
	return out
}

func (d *allocation) takeAddress(ip string) {
	d.busy[ip] = true
	family := "IPv4"
	if strings.Contains(ip, ":") {
		family = "IPv6"
	}
	d.take = append(d.take, store.Mutation{Table: d.registry.table(api.IPAddresses), Key: ip, Object: &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{
			Name: ip, UID: uuid.NewUUID(), CreationTimestamp: metav1.Time{Time: now()},
			Labels: map[string]string{networkingv1.LabelIPAddressFamily: family, networkingv1.LabelManagedBy: "ipallocator.k8s.io"},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: d.svc.Namespace, Name: d.svc.Name}},
	}})
}

func (d *allocation) ports() error {
	spec := &d.svc.Spec
	had := map[string]bool{}
	if d.old != nil {
		for _, p := range nodePortsOf(d.old) {
			had[p] = true
		}
	}
	want := spec.Type == corev1.ServiceTypeNodePort ||
		spec.Type == corev1.ServiceTypeLoadBalancer && (spec.AllocateLoadBalancerNodePorts == nil || *spec.AllocateLoadBalancerNodePorts)
	mine := map[string]bool{}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
		if p.NodePort == 0 {
			continue
		}
		key := string(p.Protocol) + "/" + strconv.Itoa(int(p.NodePort))
		if err := d.claimPort(key, p.NodePort, path, had, mine); err != nil {
			return err
		}
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.NodePort != 0 || !want {
			continue
		}
		port, ok := d.drawPort(string(p.Protocol), mine)
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: range %d-%d is full", d.portRange[0], d.portRange[1]))
		}
		p.NodePort = port
		d.undos = append(d.undos, func() { p.NodePort = 0 })
		d.reservePort(string(p.Protocol)+"/"+strconv.Itoa(int(port)), mine)
	}
	return d.healthCheckPort(had, mine)
}

func (d *allocation) healthCheckPort(had, mine map[string]bool) error {
	spec := &d.svc.Spec
	needed := spec.Type == corev1.ServiceTypeLoadBalancer && spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	switch {
	case !needed:
		spec.HealthCheckNodePort = 0
	case spec.HealthCheckNodePort != 0:
		key := "TCP/" + strconv.Itoa(int(spec.HealthCheckNodePort))
		return d.claimPort(key, spec.HealthCheckNodePort, field.NewPath("spec", "healthCheckNodePort"), had, mine)
	default:
		if port, ok := d.drawPort("TCP", mine); ok {
			spec.HealthCheckNodePort = port
			d.undos = append(d.undos, func() { spec.HealthCheckNodePort = 0 })
			d.reservePort("TCP/"+strconv.Itoa(int(port)), mine)
		}
	}
	return nil
}

// claimPort takes a port that the user chose.
func (d *allocation) claimPort(key string, port int32, path *field.Path, had, mine map[string]bool) error {
	switch {
	case mine[key] || had[key]:
		mine[key] = true
		return nil
	case port < d.portRange[0] || port > d.portRange[1]:
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, port, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", d.portRange[0], d.portRange[1]))})
	case d.portTaken(key):
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, port, "provided port is already allocated")})
	}
	d.reservePort(key, mine)
	return nil
}

func (d *allocation) portTaken(key string) bool {
	return d.busy[key] || len(d.registry.table(api.Services).Lookup(IndexNodePort, key)) > 0
}

func (d *allocation) drawPort(protocol string, mine map[string]bool) (int32, bool) {
	n := int(d.portRange[1]-d.portRange[0]) + 1
	for i, start := 0, rand.IntN(n); i < n; i++ {
		port := d.portRange[0] + int32((start+i)%n)
		key := protocol + "/" + strconv.Itoa(int(port))
		if !mine[key] && !d.portTaken(key) {
			return port, true
		}
	}
	return 0, false
}

func portKey(key string) string {
	return "/registry/ranges/servicenodeports/" + strings.ToLower(key)
}

func (d *allocation) reservePort(key string, mine map[string]bool) {
	mine[key] = true
	d.busy[key] = true
	d.take = append(d.take, store.Mutation{Key: portKey(key), Raw: []byte(d.svc.Namespace + "/" + d.svc.Name), If: 0})
}

// giveBack returns the mutations that free what old had and svc has no more.
func (d *allocation) giveBack() []store.Mutation {
	if d.old == nil {
		return nil
	}
	keep := map[string]bool{}
	for _, k := range append(addressesOf(d.svc), nodePortsOf(d.svc)...) {
		keep[k] = true
	}
	var out []store.Mutation
	for _, ip := range addressesOf(d.old) {
		if !keep[ip] {
			out = append(out, store.Mutation{Table: d.registry.table(api.IPAddresses), Key: ip, If: store.Any})
		}
	}
	for _, p := range nodePortsOf(d.old) {
		if !keep[p] {
			out = append(out, store.Mutation{Key: portKey(p), If: store.Any})
		}
	}
	return out
}
