package registration

import "k8s.io/apimachinery/pkg/runtime/schema"

// Priority is the place of a group-version in discovery: groups, and versions within them, with higher numbers come first.
type Priority struct{ Group, Version int32 }

// Custom is the priority of group-versions of custom resource definitions, which are ordered by their names.
var Custom = Priority{1000, 100}

// priorities are those that Kubernetes gives to its own group-versions, and metrics-server to its.
var priorities = map[schema.GroupVersion]Priority{
	{Group: "", Version: "v1"}:                             {18000, 1},
	{Group: "admissionregistration.k8s.io", Version: "v1"}: {16700, 15},
	{Group: "apiextensions.k8s.io", Version: "v1"}:         {16700, 15},
	{Group: "apps", Version: "v1"}:                         {17800, 15},
	{Group: "authentication.k8s.io", Version: "v1"}:        {17700, 15},
	{Group: "authorization.k8s.io", Version: "v1"}:         {17600, 15},
	{Group: "autoscaling", Version: "v1"}:                  {17500, 15},
	{Group: "autoscaling", Version: "v2"}:                  {17500, 30},
	{Group: "batch", Version: "v1"}:                        {17400, 15},
	{Group: "certificates.k8s.io", Version: "v1"}:          {17300, 15},
	{Group: "coordination.k8s.io", Version: "v1"}:          {16500, 15},
	{Group: "discovery.k8s.io", Version: "v1"}:             {16200, 15},
	{Group: "events.k8s.io", Version: "v1"}:                {17750, 15},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}: {16100, 21},
	{Group: "metrics.k8s.io", Version: "v1beta1"}:          {100, 100},
	{Group: "networking.k8s.io", Version: "v1"}:            {17200, 15},
	{Group: "node.k8s.io", Version: "v1"}:                  {16300, 15},
	{Group: "policy", Version: "v1"}:                       {17100, 15},
	{Group: "rbac.authorization.k8s.io", Version: "v1"}:    {17000, 15},
	{Group: "resource.k8s.io", Version: "v1"}:              {16200, 21},
	{Group: "scheduling.k8s.io", Version: "v1"}:            {16600, 15},
	{Group: "storage.k8s.io", Version: "v1"}:               {16800, 15},
	{Group: "storagemigration.k8s.io", Version: "v1"}:      {15800, 15},
}

// PriorityOf returns the priority of a group-version that this server answers. That of apiregistration.k8s.io itself, which no APIService
// registers, is higher than any.
func PriorityOf(gv schema.GroupVersion) (_ Priority, ok bool) {
	if gv.Group == "apiregistration.k8s.io" {
		return Priority{20001, 1}, false
	}
	if p, ok := priorities[gv]; ok {
		return p, true
	}
	return Custom, false
}
