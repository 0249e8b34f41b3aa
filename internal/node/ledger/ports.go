package ledger

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// hostPort is a port of the node that a container is reached by. ip is "" for all addresses.
type hostPort struct {
	ip       string
	port     int32
	protocol corev1.Protocol
}

// clashes reports whether both cannot be had at once.
func (p hostPort) clashes(q hostPort) bool {
	return p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == "" || q.ip == "")
}

// hostPorts returns the ports of the node that a pod asks for: those of its containers and sidecars.
func hostPorts(pod *corev1.Pod) []hostPort {
	var out []hostPort
	add := func(list []corev1.Container, sidecars bool) {
		for i := range list {
			if sidecars && !lifecycle.IsSidecar(&list[i]) {
				continue
			}
			for _, p := range list[i].Ports {
				if p.HostPort == 0 {
					continue
				}
				h := hostPort{ip: p.HostIP, port: p.HostPort, protocol: p.Protocol}
				if h.ip == "0.0.0.0" || h.ip == "::" {
					h.ip = ""
				}
				if h.protocol == "" {
					h.protocol = corev1.ProtocolTCP
				}
				out = append(out, h)
			}
		}
	}
	add(pod.Spec.Containers, false)
	add(pod.Spec.InitContainers, true)
	return out
}
