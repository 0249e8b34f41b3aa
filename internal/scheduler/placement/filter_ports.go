package placement

import corev1 "k8s.io/api/core/v1"

// nodePorts keeps pods off nodes on which a host port that they ask for is taken, or kept for a nominated pod of the same or a higher
// priority.
var nodePorts = Filter{
	Name:  "NodePorts",
	Helps: NodeChanged | PodGone | RoomReturned,
	Next:  "use another hostPort, or a Service in place of one",
	room: func(sh *shape, n *node, r *room) lack {
		if len(sh.ports) == 0 {
			return 0
		}
		var without []*podInfo
		if r != nil {
			without = r.without
		}
		if portsFree(n, sh.ports, without) && portsUnclaimed(n, sh) {
			return 0
		}
		return lackPorts
	},
	words: func(lack, *scalars) []string {
		return []string{"node(s) didn't have free ports for the requested pod ports"}
	},
}

// hostPort is a port that a pod occupies on its node. ip is "" for all addresses.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

// conflicts reports whether two pods cannot have both ports on one node: all addresses overlap with each.
func (p hostPort) conflicts(q hostPort) bool {
	return p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == "" || q.ip == "")
}

// hostPortsOf returns the host ports of pod's containers and sidecars.
func hostPortsOf(pod *corev1.Pod) []hostPort {
	var ports []hostPort
	collect := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			hp := hostPort{ip: p.HostIP, protocol: p.Protocol, port: p.HostPort}
			if hp.ip == "0.0.0.0" {
				hp.ip = ""
			}
			if hp.protocol == "" {
				hp.protocol = corev1.ProtocolTCP
			}
			ports = append(ports, hp)
		}
	}
	for i := range pod.Spec.Containers {
		collect(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			collect(c)
		}
	}
	return ports
}

// portsFree reports whether none of wanted is taken on n, not counting what the pods in without hold.
func portsFree(n *node, wanted []hostPort, without []*podInfo) bool {
	if len(n.ports) == 0 {
		return true
	}
	for _, w := range wanted {
		for taken, count := range n.ports {
			if !w.conflicts(taken) {
				continue
			}
			for _, gone := range without {
				for _, p := range gone.shape.ports {
					if p == taken {
						count--
					}
				}
			}
			if count > 0 {
				return false
			}
		}
	}
	return true
}

// portsUnclaimed reports whether no pod nominated to n, of the same or higher priority, waits for one of sh's ports.
func portsUnclaimed(n *node, sh *shape) bool {
	for _, nom := range n.nominated {
		if nom.shape.priority < sh.priority {
			continue
		}
		for _, p := range nom.shape.ports {
			for _, w := range sh.ports {
				if w.conflicts(p) {
					return false
				}
			}
		}
	}
	return true
}
