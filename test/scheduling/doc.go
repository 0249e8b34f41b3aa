// Package scheduling compares Knarr's placement with kube-scheduler's own Filter plugins, in a module of its own because these
// bring a large part of Kubernetes with them.
//
// What flows through it: random nodes, placed pods and pending pods, by seed. What must stay true: both find the same nodes
// feasible.
package scheduling
