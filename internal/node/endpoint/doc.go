// Package endpoint answers what the API server and tools ask a node: logs, exec, attach and port-forward of its pods, and figures of both.
//
// What flows through it: requests of the API server, which has checked who may, or of the kubelet's port; the runtime's streaming server
// carries exec and attach, so that nothing of a session passes here. What must stay true: an answer is of now - pods are observed when
// somebody asks; what a kubelet answers on its port 10250 is answered under the same paths (TestEndpoints).
package endpoint
