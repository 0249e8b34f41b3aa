package api

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Indexes of the shared copy.
const (
	// IndexOwner holds objects of every resource by the UID of each of their owner references.
	IndexOwner = "owner"
	// IndexNode holds pods by spec.nodeName.
	IndexNode = "node"
	// IndexService holds EndpointSlices by NAMESPACE/SERVICE, from the label kubernetes.io/service-name.
	IndexService = "service"
	// IndexNodePort holds Services by PROTOCOL/PORT of their node ports.
	IndexNodePort = "nodeport"
)

// withOwners returns indexes and IndexOwner.
func withOwners(indexes map[string]func(Object) []string) map[string]func(Object) []string {
	all := map[string]func(Object) []string{IndexOwner: owners}
	for name, values := range indexes {
		all[name] = values
	}
	return all
}

func owners(o Object) []string {
	refs := o.GetOwnerReferences()
	if len(refs) == 0 {
		return nil
	}
	uids := make([]string, len(refs))
	for i := range refs {
		uids[i] = string(refs[i].UID)
	}
	return uids
}

func nodeOfPod(o Object) []string {
	if n := o.(*corev1.Pod).Spec.NodeName; n != "" {
		return []string{n}
	}
	return nil
}

func serviceOfSlice(o Object) []string {
	if s := o.GetLabels()[discoveryv1.LabelServiceName]; s != "" {
		return []string{o.GetNamespace() + "/" + s}
	}
	return nil
}

// NodePorts returns the PROTOCOL/PORT of each node port of a Service.
func NodePorts(svc *corev1.Service) []string {
	var out []string
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, NodePort(string(p.Protocol), p.NodePort))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, NodePort("TCP", p))
	}
	return out
}

// NodePort names a port of all nodes, as IndexNodePort does: PROTOCOL/PORT.
func NodePort(protocol string, port int32) string { return protocol + "/" + strconv.Itoa(int(port)) }

// NodePortKey is the key in etcd that is there as long as a node port is taken.
func NodePortKey(port string) string {
	return "/registry/ranges/servicenodeports/" + strings.ToLower(port)
}
