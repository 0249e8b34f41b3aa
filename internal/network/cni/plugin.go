package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/ipam"
)

// Plugin does what the CNI calls ask for. Its fields are set once; it is safe for concurrent use.
type Plugin struct {
	Instance string
	Pool     *ipam.Pool
	MTU      func() int // of the links of pods, in bytes
	NodeAddr netip.Addr // preferred source address towards pods; the zero Addr leaves it to the kernel
	// SetHostPorts makes the host ports of owner lead to its pod at addrs, each in its family; no ports remove them. It returns once
	// that is so.
	SetHostPorts func(ctx context.Context, owner ipam.Owner, addrs []netip.Addr, ports []ipam.HostPort) error
	// Admit is called before a pod's link is made, and returns once the node's rules are those for the pod. Dismiss is called when the link
	// is gone.
	Admit, Dismiss func(context.Context, ipam.Allocation) error
	Log            *slog.Logger

	mu    sync.Mutex
	locks map[ipam.Owner]*ownerLock
}

// ownerLock lets one change of an owner's link happen at a time.
type ownerLock struct {
	sync.Mutex
	users int
}

// lock waits until owner's link is nobody else's to change, until the returned function is called.
func (p *Plugin) lock(owner ipam.Owner) (unlock func()) {
	p.mu.Lock()
	if p.locks == nil {
		p.locks = map[ipam.Owner]*ownerLock{}
	}
	l := p.locks[owner]
	if l == nil {
		l = &ownerLock{}
		p.locks[owner] = l
	}
	l.users++
	p.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(p.locks, owner)
		}
	}
}

// Handle answers one request. netns is the pod's network namespace, or -1.
func (p *Plugin) Handle(ctx context.Context, req *Request, netns int) (any, error) {
	var conf config
	if err := json.Unmarshal(req.Config, &conf); err != nil {
		return nil, &Error{Code: codeDecode, Msg: "network configuration is not JSON", Details: err.Error()}
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = versions[0]
	}
	if !slices.Contains(versions, conf.CNIVersion) {
		return nil, &Error{Code: codeIncompatibleVersion, Msg: fmt.Sprintf("CNI version %q is not supported", conf.CNIVersion),
			Details: "supported are " + strings.Join(versions, ", ")}
	}
	switch req.Command {
	case "STATUS":
		return nil, nil
	case "GC":
		return nil, p.collect(ctx, conf)
	case "ADD", "DEL", "CHECK":
	default:
		return nil, &Error{Code: codeInvalidEnvironment, Msg: fmt.Sprintf("CNI_COMMAND %q is unknown", req.Command)}
	}
	owner := ipam.Owner{ContainerID: req.ContainerID, IfName: req.IfName}
	if owner.ContainerID == "" || owner.IfName == "" {
		return nil, &Error{Code: codeInvalidEnvironment, Msg: "CNI_CONTAINERID and CNI_IFNAME must be set"}
	}
	if req.Command == "DEL" {
		return nil, p.Remove(ctx, owner)
	}
	if netns < 0 {
		return nil, &Error{Code: codeUnknownContainer, Msg: fmt.Sprintf("network namespace %q cannot be opened", req.NetNS)}
	}
	if req.Command == "CHECK" {
		return nil, p.check(owner, netns)
	}
	return p.add(ctx, req, conf, owner, netns)
}

// add connects the pod. After an error nothing is left.
func (p *Plugin) add(ctx context.Context, req *Request, conf config, owner ipam.Owner, netns int) (any, error) {
	ports, err := hostPorts(conf.RuntimeConfig.PortMappings)
	if err != nil {
		return nil, &Error{Code: codeInvalidConfig, Msg: err.Error()}
	}
	defer p.lock(owner)()
	args := parseArgs(req.Args)
	a, err := p.Pool.Allocate(ipam.Allocation{Owner: owner, Link: LinkName(p.Instance, owner.ContainerID, owner.IfName), NetNS: req.NetNS,
		PodNamespace: args["K8S_POD_NAMESPACE"], PodName: args["K8S_POD_NAME"], PodUID: args["K8S_POD_UID"], HostPorts: ports})
	if err != nil {
		return nil, err
	}
	mtu := p.MTU()
	err = p.Admit(ctx, a)
	if err == nil {
		err = p.link(a, netns, mtu).connect()
	}
	if err == nil && len(a.HostPorts) > 0 {
		err = p.SetHostPorts(ctx, owner, a.Addrs(), a.HostPorts)
	}
	if err != nil {
		return nil, errors.Join(err, p.remove(ctx, owner))
	}
	r := &result{
		CNIVersion: conf.CNIVersion,
		Interfaces: []resultInterface{
			{Name: a.Link, Mac: hostMAC.String(), MTU: mtu},
			{Name: owner.IfName, Mac: podMAC(a.Addr).String(), MTU: mtu, Sandbox: req.NetNS},
		},
	}
	for _, addr := range a.Addrs() {
		gateway, everything := gatewayOf(addr).String(), "0.0.0.0/0"
		if addr.Is6() {
			everything = "::/0"
		}
		r.IPs = append(r.IPs, resultIP{Address: netip.PrefixFrom(addr, addr.BitLen()).String(), Gateway: gateway, Interface: 1})
		r.Routes = append(r.Routes, resultRoute{Dst: everything, GW: gateway})
	}
	return r, nil
}

// Remove disconnects owner's pod and frees its address. It is no error if there is nothing to do. The address is freed last, so
// that it never belongs to two pods.
func (p *Plugin) Remove(ctx context.Context, owner ipam.Owner) error {
	defer p.lock(owner)()
	return p.remove(ctx, owner)
}

func (p *Plugin) remove(ctx context.Context, owner ipam.Owner) error {
	a, known := p.Pool.Get(owner)
	if known && len(a.HostPorts) > 0 {
		if err := p.SetHostPorts(ctx, owner, nil, nil); err != nil {
			return err
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := deleteLink(h, LinkName(p.Instance, owner.ContainerID, owner.IfName)); err != nil {
		return err
	}
	if known {
		if err := p.Dismiss(ctx, a); err != nil {
			return err
		}
	}
	_, _, err = p.Pool.Release(owner)
	return err
}

// check answers CHECK: is the pod still connected as ADD left it?
func (p *Plugin) check(owner ipam.Owner, netns int) error {
	a, ok := p.Pool.Get(owner)
	if !ok {
		return &Error{Code: codeUnknownContainer, Msg: fmt.Sprintf("sandbox %s has no address", owner.ContainerID)}
	}
	return p.link(a, netns, 0).check()
}

// collect answers GC: whatever the runtime does not list as attached goes.
func (p *Plugin) collect(ctx context.Context, conf config) error {
	if conf.Attachments == nil {
		return &Error{Code: codeInvalidConfig, Msg: "GC without cni.dev/valid-attachments"}
	}
	valid := map[ipam.Owner]bool{}
	for _, a := range *conf.Attachments {
		valid[ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName}] = true
	}
	return p.Reclaim(ctx, func(o ipam.Owner) bool { return valid[o] })
}

// Reclaim removes the interfaces of all sandboxes that are not live.
func (p *Plugin) Reclaim(ctx context.Context, live func(ipam.Owner) bool) error {
	var errs error
	for _, a := range p.Pool.List() {
		if live(a.Owner) {
			continue
		}
		p.Log.Info("reclaiming the address of a sandbox that is gone", "address", a.Addr, "sandbox", a.ContainerID,
			"namespace", a.PodNamespace, "pod", a.PodName)
		errs = errors.Join(errs, p.Remove(ctx, a.Owner))
	}
	return errs
}

// ReclaimLinks deletes links of the instance that belong to no allocation.
func (p *Plugin) ReclaimLinks() error {
	names, err := Links(p.Instance) // before the allocations: ADD allocates first and DEL frees last
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, a := range p.Pool.List() {
		used[LinkName(p.Instance, a.ContainerID, a.IfName)] = true
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	var errs error
	for _, name := range names {
		if !used[name] {
			p.Log.Info("deleting the link of a sandbox that is gone", "link", name)
			errs = errors.Join(errs, deleteLink(h, name))
		}
	}
	return errs
}

func (p *Plugin) link(a ipam.Allocation, netns, mtu int) link {
	return link{host: LinkName(p.Instance, a.ContainerID, a.IfName), alias: alias(p.Instance, a.ContainerID),
		ifName: a.IfName, netns: netns, addrs: a.Addrs(), mtu: mtu, nodeAddr: p.NodeAddr}
}

// parseArgs splits CNI_ARGS ("K=V;K=V").
func parseArgs(s string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			out[k] = v
		}
	}
	return out
}

// hostPorts checks the port mappings; those without a host port are none.
func hostPorts(mappings []portMapping) ([]ipam.HostPort, error) {
	var out []ipam.HostPort
	for _, m := range mappings {
		if m.HostPort == 0 {
			continue
		}
		if m.HostPort < 0 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
			return nil, fmt.Errorf("port mapping %d -> %d: ports are 1 to 65535", m.HostPort, m.ContainerPort)
		}
		hp := ipam.HostPort{HostPort: uint16(m.HostPort), ContainerPort: uint16(m.ContainerPort), Protocol: strings.ToLower(m.Protocol)}
		switch hp.Protocol {
		case "":
			hp.Protocol = "tcp"
		case "tcp", "udp", "sctp":
		default:
			return nil, fmt.Errorf("port mapping %d -> %d: protocol %q is not tcp, udp or sctp", m.HostPort, m.ContainerPort, m.Protocol)
		}
		if m.HostIP != "" {
			addr, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, fmt.Errorf("port mapping %d -> %d: host address %q: %w", m.HostPort, m.ContainerPort, m.HostIP, err)
			}
			hp.HostIP = addr
		}
		out = append(out, hp)
	}
	return out, nil
}
