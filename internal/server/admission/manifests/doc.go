// Package manifests reads admission webhooks and policies from files (KEP-5793): rules of whoever runs the servers, which are in force before the
// first request and which no request can change.
//
// What flows through it: the AdmissionConfiguration of --admission-control-config-file names a directory for each of four admission plugins
// (config.go). A directory's documents are decoded strictly, given their defaults and validated as if they were created over the
// API (read.go); [Files] holds what was read last and looks again every few seconds (files.go). The webhooks and policies of
// server/admission ask it for their objects. What must stay true: a server does not start with files that it cannot carry out; when they become
// bad while it runs, what was in force stays in force (TestReload); names end with .static.k8s.io, which the API gives to nobody, so that nothing is mistaken
// for an object of the cluster; nothing here depends on objects of the cluster, neither Services nor parameters (TestRefusals).
package manifests
