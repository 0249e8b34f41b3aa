package main

import "slices"

// row is a line of the table.
type row struct {
	what string
	unit string
	less bool    // less is better
	goal float64 // how many times better than Kubernetes Knarr is meant to be; 0 for no goal
	of   [2]string
	most float64 // for a row that is one row divided by another: what it may be
}

const (
	rowStart            = "process start to ready API"
	rowEmptyRSS         = "RSS, nothing in it"
	rowEmptyAnonymous   = "of it anonymous, nothing in it"
	rowIdleCPU          = "idle CPU over 60 s"
	rowConfigMaps1      = "ConfigMaps created, 1 client"
	rowConfigMaps32     = "ConfigMaps created, 32 clients"
	rowConfigMapCPU     = "CPU for one of them"
	rowPods1            = "pods created, 1 client"
	rowPods32           = "pods created, 32 clients"
	rowPodCPU           = "CPU for one of those"
	rowListJSON         = "list of 10,000 pods, JSON"
	rowListJSONCPU      = "CPU for a pod of it"
	rowListProtobuf     = "the same list, protobuf"
	rowListProtobufCPU  = "CPU for a pod of that one"
	rowListCached       = "the same, protobuf, resourceVersion=0"
	rowListPages        = "the same, JSON, pages of 500"
	rowWatch100         = "events told to 100 watchers"
	rowWatch1000        = "events told to 1,000 watchers"
	rowWatchCPU         = "CPU for one of these events"
	rowStorm8           = "8 writers patching one object"
	rowStorm64          = "64 writers patching one object"
	rowDefined          = "1,000 definitions to served and in OpenAPI"
	rowDefinedCPU       = "CPU until then"
	rowDefinedRSS       = "RSS that they add"
	rowDefinedAnonymous = "of it anonymous, definitions"
	rowFirstCall        = "first kubectl get with them, no cache"
	rowRuledCreated     = "objects with 20 CEL rules created, 16 clients"
	rowRuledChanged     = "those patched, 16 clients"
	rowRuledList        = "list of 10,000 of them, JSON"
	rowFlat             = "the CPU for a pod, 1,000 nodes to 100"
)

// podRows are the rows of one load of pods.
type podRows struct {
	name, rate, cpu, kwok, memory, anonymous, idle string
}

var (
	podRows100 = podRows{"pods-100", "20 x 250 pods to Ready, 100 nodes", "CPU of the control plane for a pod, beyond idle, 100 nodes",
		"CPU of kwok for a pod, heartbeats included, 100 nodes",
		"RSS under that load, highest", "of it anonymous, 100 nodes", "CPU, 100 nodes without pods"}
	podRows1000 = podRows{"pods-1000", "20 x 500 pods to Ready, 1,000 nodes", "CPU of the control plane for a pod, beyond idle, 1,000 nodes",
		"CPU of kwok for a pod, heartbeats included, 1,000 nodes",
		"RSS under this load, highest", "of it anonymous, 1,000 nodes", "CPU, 1,000 nodes without pods"}
)

// workRows are the rows of a load of one kind of workload.
type workRows struct {
	name, rate, cpu, memory string
}

var (
	jobRows     = workRows{"job", "a Job of 10,000, 1,000 at a time", "CPU for one of its pods, beyond idle", "RSS under the Job, highest"}
	cronJobRows = workRows{"cronjobs", "Jobs of 1,000 CronJobs due in one minute", "CPU for one of them, beyond idle", "RSS under the CronJobs, highest"}
	setRows     = workRows{"statefulset", "a StatefulSet of 500, Parallel, to Ready", "CPU for one of those pods, beyond idle", "RSS under the StatefulSet, highest"}
	daemonRows  = workRows{"daemonset", "a DaemonSet on 1,000 nodes updated, a tenth at a time", "CPU for a pod updated, beyond idle", "RSS under the DaemonSet, highest"}
)

// of returns the rows with their goals.
func (w workRows) of() []row {
	return []row{{what: w.rate, unit: "/s", goal: 15}, {what: w.cpu, unit: "ms", less: true, goal: 8}, {what: w.memory, unit: "MB", less: true}}
}

// rows are the table, top to bottom.
func rows() []row {
	return slices.Concat(planeRows(), jobRows.of(), cronJobRows.of(), setRows.of(), daemonRows.of())
}

func planeRows() []row {
	return []row{
		{what: rowStart, unit: "ms", less: true},
		{what: rowEmptyRSS, unit: "MB", less: true, goal: 4},
		{what: rowEmptyAnonymous, unit: "MB", less: true},
		{what: rowIdleCPU, unit: "% of a core", less: true, goal: 3},
		{what: podRows100.rate, unit: "pods/s"},
		{what: podRows100.cpu, unit: "ms", less: true},
		{what: podRows100.kwok, unit: "ms", less: true},
		{what: podRows100.memory, unit: "MB", less: true, goal: 4},
		{what: podRows100.anonymous, unit: "MB", less: true},
		{what: podRows100.idle, unit: "% of a core", less: true},
		{what: podRows1000.rate, unit: "pods/s", goal: 10},
		{what: podRows1000.cpu, unit: "ms", less: true},
		{what: podRows1000.kwok, unit: "ms", less: true},
		{what: podRows1000.memory, unit: "MB", less: true, goal: 4},
		{what: podRows1000.anonymous, unit: "MB", less: true},
		{what: podRows1000.idle, unit: "% of a core", less: true},
		{what: rowFlat, unit: "x", less: true, of: [2]string{podRows1000.cpu, podRows100.cpu}, most: 1.5},
		{what: rowConfigMaps1, unit: "/s"},
		{what: rowConfigMaps32, unit: "/s"},
		{what: rowConfigMapCPU, unit: "µs", less: true},
		{what: rowPods1, unit: "/s"},
		{what: rowPods32, unit: "/s"},
		{what: rowPodCPU, unit: "µs", less: true},
		{what: rowStorm8, unit: "/s"},
		{what: rowStorm64, unit: "/s", goal: 3},
		{what: rowListJSON, unit: "pods/s"},
		{what: rowListJSONCPU, unit: "µs", less: true},
		{what: rowListProtobuf, unit: "pods/s"},
		{what: rowListProtobufCPU, unit: "µs", less: true},
		{what: rowListCached, unit: "pods/s"},
		{what: rowListPages, unit: "pods/s"},
		{what: rowWatch100, unit: "events/s"},
		{what: rowWatch1000, unit: "events/s"},
		{what: rowWatchCPU, unit: "µs", less: true},
		{what: rowDefined, unit: "s", less: true},
		{what: rowDefinedCPU, unit: "s", less: true, goal: 10},
		{what: rowDefinedRSS, unit: "MB", less: true, goal: 10},
		{what: rowDefinedAnonymous, unit: "MB", less: true},
		{what: rowFirstCall, unit: "ms", less: true},
		{what: rowRuledCreated, unit: "/s", goal: 5},
		{what: rowRuledChanged, unit: "/s", goal: 5},
		{what: rowRuledList, unit: "objects/s", goal: 20},
	}
}
