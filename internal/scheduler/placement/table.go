package placement

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// rule says what a table is for.
type rule int

const (
	ruleSpreadHard rule = iota // topology spread, DoNotSchedule
	ruleSpreadSoft             // topology spread, ScheduleAnyway
	ruleAffinity               // required pod affinity
	ruleAnti                   // required pod anti-affinity
	ruleExisting               // required anti-affinity of pods already placed
	ruleScore                  // preferred (anti-)affinity, in both directions
)

// manyDomains is up to how many domains a topology is looked up per group of nodes. With more, each node keeps its
// domain's value and is looked at again when that changes.
const manyDomains = 64

// tableSpec describes one topology rule of a class. It is the key part of a class, too.
type tableSpec struct {
	rule          rule
	counterKey    string
	match         func(*shape) bool
	topologyKey   string
	maxSkew       int32
	minDomains    int32
	self          int32 // 1 if the pod counts itself
	honorAffinity bool
	honorTaints   bool
	weight        int64
}

// id writes the spec as part of a class's key.
func (t *tableSpec) id(w *keyWriter) {
	w.int(int64(t.rule))
	w.string(t.counterKey)
	w.string(t.topologyKey)
	w.string(strconv.Itoa(int(t.maxSkew)) + "/" + strconv.Itoa(int(t.minDomains)) + "/" + strconv.Itoa(int(t.self)))
	w.bool(t.honorAffinity)
	w.bool(t.honorTaints)
	w.int(t.weight)
}

// table holds, for one topology rule of a class, how many pods that the rule means are in each domain.
type table struct {
	tableSpec
	topo    *topology
	counter *counter
	wide    bool
	// perNode reports whether the rule looks at the node alone: soft spreading over hostnames.
	perNode bool

	added  []added // per node
	sum    []int32 // per domain: pods
	nodes  []int32 // per domain: nodes that count
	usable []int32 // per domain: nodes in some group; only where narrow soft spreading needs it
	usedIn []int32 // per node: the domain whose usable it is in; likewise

	domains       int // with nodes that count
	total         int64
	usableDomains int32
	lowest        int32 // the smallest sum
	atLowest      int32 // how many domains have it; 0 means that both are unknown

	mark []uint32 // per domain, scratch for counting distinct ones
}

// added is what of a node stands in the sums: so many pods in that domain, or noDomain.
type added struct{ domain, pods int32 }

func newTable(st *State, spec tableSpec) *table {
	t := &table{tableSpec: spec, topo: st.topology(spec.topologyKey), counter: st.counter(spec.counterKey, spec.match)}
	t.perNode = spec.rule == ruleSpreadSoft && spec.topologyKey == corev1.LabelHostname
	t.wide = spec.topologyKey != corev1.LabelHostname && t.topo.used <= st.manyDomains
	return t
}

// grow makes room for n nodes and for all domains there are.
func (t *table) grow(n int) {
	if more := n - len(t.added); more > 0 {
		t.added = slices.Grow(t.added, more)[:n]
		for i := n - more; i < n; i++ {
			t.added[i].domain = noDomain
		}
	}
	if n := len(t.topo.members); n > len(t.sum) {
		more := max(n-len(t.sum), 64)
		t.sum, t.nodes = slices.Grow(t.sum, more)[:n], slices.Grow(t.nodes, more)[:n]
		t.usable, t.mark = slices.Grow(t.usable, more)[:n], slices.Grow(t.mark, more)[:n]
	}
}

// count brings node i's contribution up to date. counts reports whether its pods count towards its domain. It returns the
// domains whose sums changed, or noDomain.
func (t *table) count(i int32, counts bool) (left, joined int32) {
	domain := int32(noDomain)
	if counts {
		domain = t.topo.of[i]
	}
	now := t.counter.node[i]
	was, wasDomain := t.added[i].pods, t.added[i].domain
	if domain == wasDomain && now == was {
		return noDomain, noDomain
	}
	t.added[i] = added{domain: domain, pods: now}
	if domain == wasDomain {
		if domain == noDomain {
			return noDomain, noDomain
		}
		t.shift(domain, now-was)
		return noDomain, domain
	}
	if wasDomain != noDomain {
		t.shift(wasDomain, -was)
		if t.nodes[wasDomain]--; t.nodes[wasDomain] == 0 {
			t.domains--
		}
	}
	if domain != noDomain {
		if t.nodes[domain]++; t.nodes[domain] == 1 {
			t.domains++
		}
		t.shift(domain, now)
	}
	t.atLowest = 0
	return wasDomain, domain
}

func (t *table) shift(domain, delta int32) {
	old := t.sum[domain]
	now := old + delta
	t.sum[domain] = now
	t.total += int64(delta)
	if t.atLowest == 0 || delta == 0 {
		return
	}
	switch {
	case now < t.lowest:
		t.lowest, t.atLowest = now, 1
	case now == t.lowest:
		t.atLowest++
	case old == t.lowest:
		t.atLowest--
	}
}

// minimum returns the smallest number of pods in any domain, 0 if there are fewer domains than minDomains.
func (t *table) minimum() int32 {
	if t.domains == 0 || t.domains < int(t.minDomains) {
		return 0
	}
	if t.atLowest == 0 {
		for d, nodes := range t.nodes {
			switch {
			case nodes == 0:
			case t.atLowest == 0 || t.sum[d] < t.lowest:
				t.lowest, t.atLowest = t.sum[d], 1
			case t.sum[d] == t.lowest:
				t.atLowest++
			}
		}
	}
	return t.lowest
}

// at returns what node i's group must know of this table: the domain where the group looks the sum up itself (wide), else
// the value; noDomain where the node lacks the label.
func (t *table) at(i int32) int32 {
	domain := t.topo.of[i]
	if domain == noDomain || t.wide {
		return domain
	}
	if t.perNode {
		return t.counter.node[i]
	}
	value := t.sum[domain]
	switch t.rule {
	case ruleAffinity, ruleAnti, ruleExisting:
		return min(value, 1)
	}
	return value
}

// value resolves what at returned to a number of pods.
func (t *table) value(at int32) int32 {
	if at != noDomain && t.wide {
		return t.sum[at]
	}
	return at
}

// use notes that node i entered or left the groups, for counting the domains that can be chosen.
func (t *table) use(i int32, entered bool) {
	if t.rule != ruleSpreadSoft || t.wide || t.perNode {
		return
	}
	for len(t.usedIn) < len(t.topo.of) {
		t.usedIn = append(t.usedIn, noDomain)
	}
	if d := t.usedIn[i]; d != noDomain {
		t.usedIn[i] = noDomain
		if t.usable[d]--; t.usable[d] == 0 {
			t.usableDomains--
		}
	}
	if d := t.topo.of[i]; entered && d != noDomain {
		t.usedIn[i] = d
		if t.usable[d]++; t.usable[d] == 1 {
			t.usableDomains++
		}
	}
}
