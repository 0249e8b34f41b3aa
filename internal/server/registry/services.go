package registry

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
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
// that two servers can never give out the same one and nothing has to be repaired afterwards. Who loses such a race draws again.
type serviceAllocator struct {
	registry  *Registry
	cidr      netip.Prefix
	portRange [2]int32
}

// addressesOf returns the allocated cluster IPs of a Service.
func addressesOf(svc *corev1.Service) []string {
	var out []string
	for _, s := range svc.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(s); err == nil { // not None
			out = append(out, ip.String())
		}
	}
	return out
}

// fill gives svc the addresses and ports that it needs and does not have, and refuses those that it names and cannot have. It goes
// before svc is prepared and validated; nothing is taken yet. old is what is stored, nil for a new Service.
func (a *serviceAllocator) fill(obj, current api.Object) error {
	svc := obj.(*corev1.Service)
	old, _ := current.(*corev1.Service)
	if old == nil {
		old = &corev1.Service{}
	} else {
		api.KeepServiceAllocations(svc, old)
	}
	d := &allocation{serviceAllocator: a, svc: svc, had: map[string]bool{}, mine: map[string]bool{}}
	for _, k := range append(addressesOf(old), api.NodePorts(old)...) {
		d.had[k] = true
	}
	switch svc.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
	default: // ExternalName, or what validation will refuse
		return nil
	}
	if err := d.families(); err != nil {
		return err
	}
	if err := d.addresses(); err != nil {
		return err
	}
	return d.ports()
}

// exchange returns the mutations that take what svc has and old had not, and give back what old had and svc no longer has; either may be
// nil.
func (a *serviceAllocator) exchange(current, obj api.Object) []store.Mutation {
	old, _ := current.(*corev1.Service)
	svc, _ := obj.(*corev1.Service)
	if old == nil {
		old = &corev1.Service{}
	}
	if svc == nil {
		svc = &corev1.Service{}
	}
	var out []store.Mutation
	for _, ip := range without(addressesOf(svc), addressesOf(old)) {
		out = append(out, a.takeAddress(svc, ip))
	}
	for _, p := range without(api.NodePorts(svc), api.NodePorts(old)) {
		out = append(out, store.Mutation{Key: api.NodePortKey(p), Raw: []byte(svc.Namespace + "/" + svc.Name), If: 0})
	}
	for _, ip := range without(addressesOf(old), addressesOf(svc)) {
		out = append(out, store.Mutation{Table: a.registry.Table(api.IPAddresses), Key: ip, If: store.Any})
	}
	for _, p := range without(api.NodePorts(old), api.NodePorts(svc)) {
		out = append(out, store.Mutation{Key: api.NodePortKey(p), If: store.Any})
	}
	return out
}

// without returns what stands in list and not in other, each once.
func without(list, other []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(other, s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// allocation is one Service being given what it needs.
type allocation struct {
	*serviceAllocator
	svc  *corev1.Service
	had  map[string]bool // addresses and PROTOCOL/PORT of the stored Service
	mine map[string]bool // PROTOCOL/PORT that it has now
}

// families defaults the IP family fields (KEP-563) for a cluster with one family. A headless Service without a selector may
// name any: its endpoints are none of the cluster's business.
func (d *allocation) families() error {
	spec := &d.svc.Spec
	family := corev1.IPv4Protocol
	if d.cidr.Addr().Is6() {
		family = corev1.IPv6Protocol
	}
	if spec.IPFamilyPolicy == nil {
		single := corev1.IPFamilyPolicySingleStack
		spec.IPFamilyPolicy = &single
	}
	free := spec.ClusterIP == corev1.ClusterIPNone && len(spec.Selector) == 0
	var errs field.ErrorList
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && !free {
		errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), *spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range spec.IPFamilies {
		if f != family && !free {
			errs = append(errs, field.Invalid(field.NewPath("spec", "ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	if len(errs) > 0 {
		return invalid(api.Services, d.svc, errs)
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{family}
	}
	return nil
}

func (d *allocation) addresses() error {
	spec := &d.svc.Spec
	if len(spec.ClusterIPs) > 0 && spec.ClusterIP == "" && len(spec.ClusterIPs[0]) > 0 {
		return nil // validation explains that the first of clusterIPs must be clusterIP
	}
	if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	switch {
	case spec.ClusterIP == corev1.ClusterIPNone:
		return nil
	case spec.ClusterIP == "":
		ip, ok := d.drawAddress()
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: range %s is full", spell(d.ranges())))
		}
		spec.ClusterIP, spec.ClusterIPs = ip.String(), []string{ip.String()}
		return nil
	}
	path := field.NewPath("spec", "clusterIPs")
	for i, s := range spec.ClusterIPs[1:] {
		if ip, err := netip.ParseAddr(s); err == nil && ip.Is6() != d.cidr.Addr().Is6() {
			return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path.Index(i+1), s, "its family is not configured on this cluster")})
		}
	}
	ip, err := netip.ParseAddr(spec.ClusterIP)
	switch {
	case err != nil || !d.had[ip.String()] && !slices.ContainsFunc(d.ranges(), func(p netip.Prefix) bool { return p.Contains(ip) }):
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: the provided IP is not in the valid range. The range of valid IPs is %s", spec.ClusterIP, spell(d.ranges())))})
	case !d.had[ip.String()] && d.taken(ip):
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", spec.ClusterIP))})
	}
	return nil
}

func (d *allocation) taken(ip netip.Addr) bool {
	_, taken := d.registry.Table(api.IPAddresses).Get(ip.String())
	return taken
}

// ranges returns what addresses are given out of: the cluster's own range, and those of further ServiceCIDRs of its family that are ready
// and not being deleted (KEP-1880).
func (a *serviceAllocator) ranges() []netip.Prefix {
	out := []netip.Prefix{a.cidr}
	a.registry.Table(api.ServiceCIDRs).Snapshot().Ascend("", "", func(rev *store.Revision) bool {
		c := rev.Object.(*networkingv1.ServiceCIDR)
		if c.DeletionTimestamp != nil || !apimeta.IsStatusConditionTrue(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady) {
			return true
		}
		for _, s := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is6() == a.cidr.Addr().Is6() && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
		return true
	})
	return out
}

// spell lists ranges for people.
func spell(ranges []netip.Prefix) string {
	var out []string
	for _, p := range ranges {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// drawAddress picks a free address, from the first range that has one.
func (d *allocation) drawAddress() (netip.Addr, bool) {
	for _, p := range d.ranges() {
		if ip, ok := d.drawFrom(p); ok {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// drawFrom picks a free address of cidr at random, from the upper part of it first: the lower band is left for addresses that users
// choose (KEP-3070).
func (d *allocation) drawFrom(cidr netip.Prefix) (netip.Addr, bool) {
	bits := min(cidr.Addr().BitLen()-cidr.Bits(), 20)
	size := 1 << bits
	band := min(max(16, size/16), 256)
	if band >= size {
		band = 0
	}
	base := cidr.Masked().Addr()
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

// takeAddress returns the mutation that creates the IPAddress of a Service's cluster IP.
func (a *serviceAllocator) takeAddress(svc *corev1.Service, ip string) store.Mutation {
	family := "IPv4"
	if strings.Contains(ip, ":") {
		family = "IPv6"
	}
	return store.Mutation{Table: a.registry.Table(api.IPAddresses), Key: ip, Object: &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{
			Name: ip, UID: uuid.NewUUID(), CreationTimestamp: metav1.Time{Time: now()},
			Labels: map[string]string{networkingv1.LabelIPAddressFamily: family, networkingv1.LabelManagedBy: "ipallocator.k8s.io"},
		},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: svc.Namespace, Name: svc.Name}},
	}}
}

// ports claims the node ports that svc names, then draws those that are missing.
func (d *allocation) ports() error {
	spec := &d.svc.Spec
	if spec.Type == corev1.ServiceTypeClusterIP {
		return nil
	}
	numbers := map[int32]int32{} // port -> node port: DNS over UDP and TCP, say, gets one number where possible
	for i := range spec.Ports {
		if p := &spec.Ports[i]; p.NodePort != 0 {
			if err := d.claimPort(string(p.Protocol), p.NodePort, field.NewPath("spec", "ports").Index(i).Child("nodePort")); err != nil {
				return err
			}
			numbers[p.Port] = p.NodePort
		}
	}
	draw := spec.Type == corev1.ServiceTypeNodePort || spec.AllocateLoadBalancerNodePorts == nil || *spec.AllocateLoadBalancerNodePorts
	for i := range spec.Ports {
		if p := &spec.Ports[i]; p.NodePort == 0 && draw {
			port, err := d.drawPort(string(p.Protocol), numbers[p.Port])
			if err != nil {
				return err
			}
			p.NodePort, numbers[p.Port] = port, port
		}
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer || spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return nil
	}
	if spec.HealthCheckNodePort != 0 {
		return d.claimPort("TCP", spec.HealthCheckNodePort, field.NewPath("spec", "healthCheckNodePort"))
	}
	port, err := d.drawPort("TCP", 0)
	spec.HealthCheckNodePort = port
	return err
}

// claimPort takes a port that the user chose.
func (d *allocation) claimPort(protocol string, port int32, path *field.Path) error {
	key := api.NodePort(protocol, port)
	switch {
	case d.mine[key] || d.had[key]:
	case port < d.portRange[0] || port > d.portRange[1]:
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, port, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", d.portRange[0], d.portRange[1]))})
	case d.portTaken(key):
		return invalid(api.Services, d.svc, field.ErrorList{field.Invalid(path, port, "provided port is already allocated")})
	}
	d.mine[key] = true
	return nil
}

func (d *allocation) portTaken(key string) bool {
	return len(d.registry.Table(api.Services).Lookup(api.IndexNodePort, key)) > 0
}

// drawPort picks a free port at random, or wish (if not 0) where it is free.
func (d *allocation) drawPort(protocol string, wish int32) (int32, error) {
	n := int(d.portRange[1]-d.portRange[0]) + 1
	port := wish
	for i, start := 0, rand.IntN(n); i <= n; i++ {
		if key := api.NodePort(protocol, port); port != 0 && !d.mine[key] && !d.portTaken(key) {
			d.mine[key] = true
			return port, nil
		}
		port = d.portRange[0] + int32((start+i)%n)
	}
	return 0, apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: range %d-%d is full", d.portRange[0], d.portRange[1]))
}
