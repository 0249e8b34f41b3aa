package placement

import "strings"

// Filter names what turned a node, or a pod, down. The names are those of kube-scheduler's plugins.
type Filter uint16

// Filters, as bits so that they form sets.
const (
	FilterUnschedulable Filter = 1 << iota
	FilterTaints
	FilterNodeAffinity
	FilterPorts
	FilterResources
	FilterVolumes
	FilterSpread
	FilterInterPod
)

var filterNames = [...]string{
	"NodeUnschedulable", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit", "VolumeBinding",
	"PodTopologySpread", "InterPodAffinity",
}

// String lists the filters in f.
func (f Filter) String() string {
	var names []string
	for i, name := range filterNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// verdict is why a node was turned down.
type verdict struct {
	filter  Filter
	reasons []string
	// unresolvable says that taking pods off the node would not help.
	unresolvable bool
	nodes        int // of the class that were
}

const noVerdict int32 = -1

// verdicts numbers the verdicts of a class and counts the nodes of each.
type verdicts struct {
	list   []verdict
	byText map[string]int32
	byLack map[lack]int32
}

// final returns the verdict that no removal of pods changes.
func (v *verdicts) final(f Filter, reason string) int32 {
	return v.number(verdict{filter: f, reasons: []string{reason}, unresolvable: true})
}

func (v *verdicts) blocked(f Filter, reason string) int32 {
	return v.number(verdict{filter: f, reasons: []string{reason}})
}

func (v *verdicts) number(what verdict) int32 {
	text := what.reasons[0]
	if i, ok := v.byText[text]; ok {
		return i
	}
	if v.byText == nil {
		v.byText = map[string]int32{}
	}
	i := int32(len(v.list))
	v.list = append(v.list, what)
	v.byText[text] = i
	return i
}

func (v *verdicts) lacking(l lack, names *scalars) int32 {
	if i, ok := v.byLack[l]; ok {
		return i
	}
	if v.byLack == nil {
		v.byLack = map[lack]int32{}
	}
	i := int32(len(v.list))
	v.list = append(v.list, l.verdict(names))
	v.byLack[l] = i
	return i
}

func (v *verdicts) count(i int32, delta int) {
	if i != noVerdict {
		v.list[i].nodes += delta
	}
}

// judgement is what topology rules say of a group of nodes.
type judgement int

const (
	fine judgement = iota
	missesSpreadLabel
	breaksSpread
	missesAffinity
	breaksAnti
	breaksExisting
)

// verdict puts a judgement into words. Kubernetes treats missing affinity as not to be cured by removing pods.
func (j judgement) verdict() verdict {
	switch j {
	case missesSpreadLabel:
		return verdict{filter: FilterSpread, reasons: []string{reasonSpreadLabel}, unresolvable: true}
	case breaksSpread:
		return verdict{filter: FilterSpread, reasons: []string{reasonSpread}}
	case missesAffinity:
		return verdict{filter: FilterInterPod, reasons: []string{reasonAffinity}, unresolvable: true}
	case breaksAnti:
		return verdict{filter: FilterInterPod, reasons: []string{reasonAnti}}
	case breaksExisting:
		return verdict{filter: FilterInterPod, reasons: []string{reasonExisting}}
	}
	return verdict{}
}
