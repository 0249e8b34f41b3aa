package placement

import corev1 "k8s.io/api/core/v1"

const reasonPorts = "node(s) didn't have free ports for the requested pod ports"

// hostPort is a port that a pod occupies on its node. ip is "" for all addresses.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

// conflicts says that two pods cannot have both ports on one node: all addresses overlap with each.
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

// portsFree says that none of wanted is taken on n, not counting what the pods in without hold.
func portsFree(n *node, wanted []hostPort, without []*podInfo) bool {
	if len(wanted) == 0 || len(n.ports) == 0 {
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

// portsUnclaimed says that no pod nominated to n, of the same or higher priority, waits for one of sh's ports.
func portsUnclaimed(n *node, sh *shape) bool {
	if len(sh.ports) == 0 {
		return true
	}
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
