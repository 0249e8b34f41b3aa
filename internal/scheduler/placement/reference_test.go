package placement

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	resourcehelper "k8s.io/component-helpers/resource"
	corehelpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// reference places pods in the plainest way: for each pod it looks at every node and every placed pod. It keeps
// nothing between pods.
type reference struct {
	nodes      map[string]*corev1.Node
	placed     []*corev1.Pod // with spec.nodeName
	namespaces map[string]labels.Set
}

func (r *reference) on(node string) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, p := range r.placed {
		if p.Spec.NodeName == node {
			pods = append(pods, p)
		}
	}
	return pods
}

// judge returns the score of each feasible node, and for the others how many there are by reason.
func (r *reference) judge(pod *corev1.Pod) (scores map[string]int64, reasons map[string]int) {
	reasons = map[string]int{}
	var feasible []*corev1.Node
	for _, n := range r.nodes {
		why := r.filter(pod, n)
		if len(why) == 0 {
			feasible = append(feasible, n)
		}
		for _, reason := range why {
			reasons[reason]++
		}
	}
	return r.score(pod, feasible), reasons
}

func (r *reference) filter(pod *corev1.Pod, n *corev1.Node) []string {
	tol := pod.Spec.Tolerations
	if n.Spec.Unschedulable && !corehelpers.TolerationsTolerateTaint(klog.Logger{}, tol, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}, false) {
		return []string{"node(s) were unschedulable"}
	}
	if taint, bad := r.untolerated(pod, n); bad {
		return []string{fmt.Sprintf("node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value)}
	}
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n); !ok {
		return []string{"node(s) didn't match Pod's node affinity/selector"}
	}
	for _, rule := range pod.Spec.Containers[0].RestartPolicyRules {
		if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers && !slices.Contains(n.Status.DeclaredFeatures, "RestartAllContainersOnContainerExits") {
			return []string{"node(s) didn't match Pod's required features"}
		}
	}
	if r.portConflict(pod, n) {
		return []string{"node(s) didn't have free ports for the requested pod ports"}
	}
	if why := r.fit(pod, n); len(why) > 0 {
		return why
	}
	if why := r.spread(pod, n); why != "" {
		return []string{why}
	}
	if why := r.interPod(pod, n); why != "" {
		return []string{why}
	}
	return nil
}

func (r *reference) untolerated(pod *corev1.Pod, n *corev1.Node) (corev1.Taint, bool) {
	return corehelpers.FindMatchingUntoleratedTaint(klog.Logger{}, n.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false)
}

func (r *reference) portConflict(pod *corev1.Pod, n *corev1.Node) bool {
	for _, other := range r.on(n.Name) {
		for _, c := range other.Spec.Containers {
			for _, taken := range c.Ports {
				for _, mine := range pod.Spec.Containers {
					for _, want := range mine.Ports {
						if want.HostPort != 0 && want.HostPort == taken.HostPort {
							return true
						}
					}
				}
			}
		}
	}
	return false
}

func (r *reference) used(node string, name corev1.ResourceName) int64 {
	var sum int64
	for _, p := range r.on(node) {
		sum += inList(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{}), name)
	}
	return sum
}

// enormous is more than any node has. Quantities beyond it count as it, so that sums of them stay numbers.
const enormous = 1 << 52

func inList(list corev1.ResourceList, name corev1.ResourceName) int64 {
	q := list[name]
	if q.CmpInt64(enormous/1000) > 0 {
		return enormous
	}
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func (r *reference) fit(pod *corev1.Pod, n *corev1.Node) []string {
	var why []string
	if int64(len(r.on(n.Name)))+1 > n.Status.Allocatable.Pods().Value() {
		why = append(why, "Too many pods")
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	for name := range requests {
		if want := inList(requests, name); want > 0 && want+r.used(n.Name, name) > inList(n.Status.Allocatable, name) {
			why = append(why, "Insufficient "+string(name))
		}
	}
	return why
}

func refSelector(c *corev1.TopologySpreadConstraint, pod *corev1.Pod) labels.Selector {
	s, _ := metav1.LabelSelectorAsSelector(c.LabelSelector)
	for _, key := range c.MatchLabelKeys {
		if v, ok := pod.Labels[key]; ok {
			req, _ := labels.NewRequirement(key, "in", []string{v})
			s = s.Add(*req)
		}
	}
	return s
}

func refConstraints(pod *corev1.Pod, hard bool) []corev1.TopologySpreadConstraint {
	var out []corev1.TopologySpreadConstraint
	for _, c := range pod.Spec.TopologySpreadConstraints {
		if (c.WhenUnsatisfiable == corev1.DoNotSchedule) == hard {
			out = append(out, c)
		}
	}
	return out
}

func hasAll(n *corev1.Node, cs []corev1.TopologySpreadConstraint) bool {
	for _, c := range cs {
		if _, ok := n.Labels[c.TopologyKey]; !ok {
			return false
		}
	}
	return true
}

func (r *reference) included(pod *corev1.Pod, n *corev1.Node, c *corev1.TopologySpreadConstraint) bool {
	if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
		if ok, _ := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n); !ok {
			return false
		}
	}
	if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
		if _, bad := r.untolerated(pod, n); bad {
			return false
		}
	}
	return true
}

func (r *reference) matching(node, ns string, s labels.Selector, owner string) int {
	count := 0
	for _, p := range r.on(node) {
		if p.Namespace != ns || p.DeletionTimestamp != nil {
			continue
		}
		if owner != "" {
			if string(ownerOf(p)) == owner {
				count++
			}
		} else if !s.Empty() && s.Matches(labels.Set(p.Labels)) {
			count++
		}
	}
	return count
}

func (r *reference) spread(pod *corev1.Pod, n *corev1.Node) string {
	hard := refConstraints(pod, true)
	for i := range hard {
		c := &hard[i]
		value, ok := n.Labels[c.TopologyKey]
		if !ok {
			return "node(s) didn't match pod topology spread constraints (missing required label)"
		}
		s := refSelector(c, pod)
		counts := map[string]int{}
		for _, other := range r.nodes {
			if hasAll(other, hard) && r.included(pod, other, c) {
				counts[other.Labels[c.TopologyKey]] += r.matching(other.Name, pod.Namespace, s, "")
			}
		}
		lowest := math.MaxInt32
		for _, k := range counts {
			lowest = min(lowest, k)
		}
		minDomains := 1
		if c.MinDomains != nil {
			minDomains = int(*c.MinDomains)
		}
		if len(counts) < minDomains {
			lowest = 0
		}
		self := 0
		if s.Matches(labels.Set(pod.Labels)) {
			self = 1
		}
		if counts[value]+self-lowest > int(c.MaxSkew) {
			return "node(s) didn't match pod topology spread constraints"
		}
	}
	return ""
}

// termMatches says that term t of pod means other.
func (r *reference) termMatches(pod *corev1.Pod, t *corev1.PodAffinityTerm, other *corev1.Pod) bool {
	in := slices.Contains(t.Namespaces, other.Namespace)
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		in = other.Namespace == pod.Namespace
	}
	if t.NamespaceSelector != nil {
		s, _ := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		in = in || s.Matches(r.namespaces[other.Namespace])
	}
	s, _ := metav1.LabelSelectorAsSelector(t.LabelSelector)
	return in && s.Matches(labels.Set(other.Labels))
}

func terms(pod *corev1.Pod) (affinity, anti []corev1.PodAffinityTerm, preferred, disliked []corev1.WeightedPodAffinityTerm) {
	if a := pod.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			affinity, preferred = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			anti, disliked = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
	}
	return affinity, anti, preferred, disliked
}

// together says that pod p's node is in the same domain as n.
func (r *reference) together(p *corev1.Pod, n *corev1.Node, key string) bool {
	v, ok := n.Labels[key]
	other := r.nodes[p.Spec.NodeName]
	if !ok || other == nil {
		return false
	}
	w, ok := other.Labels[key]
	return ok && v == w
}

func (r *reference) interPod(pod *corev1.Pod, n *corev1.Node) string {
	affinity, anti, _, _ := terms(pod)
	matchesAll := func(p *corev1.Pod) bool {
		for i := range affinity {
			if !r.termMatches(pod, &affinity[i], p) {
				return false
			}
		}
		return true
	}
	if len(affinity) > 0 {
		met, anywhere := true, false
		for i := range affinity {
			if _, ok := n.Labels[affinity[i].TopologyKey]; !ok {
				return "node(s) didn't match pod affinity rules"
			}
			here := false
			for _, p := range r.placed {
				other := r.nodes[p.Spec.NodeName]
				if other == nil || !matchesAll(p) {
					continue
				}
				if _, ok := other.Labels[affinity[i].TopologyKey]; ok {
					anywhere = true
				}
				here = here || r.together(p, n, affinity[i].TopologyKey)
			}
			met = met && here
		}
		if !met && (anywhere || !matchesAll(pod)) {
			return "node(s) didn't match pod affinity rules"
		}
	}
	for i := range anti {
		for _, p := range r.placed {
			if r.termMatches(pod, &anti[i], p) && r.together(p, n, anti[i].TopologyKey) {
				return "node(s) didn't match pod anti-affinity rules"
			}
		}
	}
	for _, p := range r.placed {
		_, theirs, _, _ := terms(p)
		for i := range theirs {
			if r.termMatches(p, &theirs[i], pod) && r.together(p, n, theirs[i].TopologyKey) {
				return "node(s) didn't satisfy existing pods anti-affinity rules"
			}
		}
	}
	return ""
}

func (r *reference) score(pod *corev1.Pod, feasible []*corev1.Node) map[string]int64 {
	out := map[string]int64{}
	taints, prefs, inter := map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, n := range feasible {
		for _, t := range n.Spec.Taints {
			if t.Effect != corev1.TaintEffectPreferNoSchedule {
				continue
			}
			ok := false
			for _, tol := range pod.Spec.Tolerations {
				ok = ok || (tol.Effect == "" || tol.Effect == t.Effect) && tol.ToleratesTaint(klog.Logger{}, &t, false)
			}
			if !ok {
				taints[n.Name]++
			}
		}
		if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
			p, _ := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
			prefs[n.Name] = p.Score(n)
		}
		inter[n.Name] = r.pull(pod, n)
		out[n.Name] = r.local(pod, n)
	}
	worst, best := int64(0), int64(0)
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, n := range feasible {
		worst, best = max(worst, taints[n.Name]), max(best, prefs[n.Name])
		lo, hi = min(lo, inter[n.Name]), max(hi, inter[n.Name])
	}
	spread := r.spreadScores(pod, feasible)
	for _, n := range feasible {
		if worst > 0 {
			out[n.Name] += 3 * (100 - 100*taints[n.Name]/worst)
		} else {
			out[n.Name] += 3 * 100
		}
		if best > 0 {
			out[n.Name] += 2 * (100 * prefs[n.Name] / best)
		}
		if hi > lo {
			out[n.Name] += 2 * int64(100*(float64(inter[n.Name]-lo)/float64(hi-lo)))
		}
		out[n.Name] += 2 * spread[n.Name]
	}
	return out
}

func (r *reference) pull(pod *corev1.Pod, n *corev1.Node) int64 {
	var sum int64
	_, _, liked, disliked := terms(pod)
	for _, p := range r.placed {
		one := func(from *corev1.Pod, w *corev1.PodAffinityTerm, to *corev1.Pod, weight int64) {
			if r.termMatches(from, w, to) && r.together(p, n, w.TopologyKey) {
				sum += weight
			}
		}
		for i := range liked {
			one(pod, &liked[i].PodAffinityTerm, p, int64(liked[i].Weight))
		}
		for i := range disliked {
			one(pod, &disliked[i].PodAffinityTerm, p, -int64(disliked[i].Weight))
		}
		required, _, theirs, theirDisliked := terms(p)
		for i := range required {
			one(p, &required[i], pod, 1)
		}
		for i := range theirs {
			one(p, &theirs[i].PodAffinityTerm, pod, int64(theirs[i].Weight))
		}
		for i := range theirDisliked {
			one(p, &theirDisliked[i].PodAffinityTerm, pod, -int64(theirDisliked[i].Weight))
		}
	}
	return sum
}

// local is LeastAllocated plus BalancedAllocation.
func (r *reference) local(pod *corev1.Pod, n *corev1.Node) int64 {
	assumed := func(p *corev1.Pod) (int64, int64) {
		c, m := statedOrAssumed(p)
		return min(c, enormous), min(m, enormous)
	}
	cpu, mem := assumed(pod)
	for _, p := range r.on(n.Name) {
		c, m := assumed(p)
		cpu, mem = cpu+c, mem+m
	}
	allocCPU, allocMem := n.Status.Allocatable.Cpu().MilliValue(), n.Status.Allocatable.Memory().Value()
	free := func(used, alloc int64) int64 {
		if used > alloc {
			return 0
		}
		return (alloc - used) * 100 / alloc
	}
	score := (free(cpu, allocCPU) + free(mem, allocMem)) / 2

	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	wantCPU, wantMem := inList(requests, corev1.ResourceCPU), inList(requests, corev1.ResourceMemory)
	if wantCPU == 0 && wantMem == 0 {
		return score
	}
	even := func(c, m int64) int64 {
		f, g := min(1, float64(c)/float64(allocCPU)), min(1, float64(m)/float64(allocMem))
		return int64((1 - math.Abs((f-g)/2)) * 100)
	}
	usedCPU, usedMem := r.used(n.Name, corev1.ResourceCPU), r.used(n.Name, corev1.ResourceMemory)
	return score + 50 + (50+even(usedCPU+wantCPU, usedMem+wantMem)-even(usedCPU, usedMem))/2
}

func (r *reference) spreadScores(pod *corev1.Pod, feasible []*corev1.Node) map[string]int64 {
	soft, owner, own := refConstraints(pod, false), "", len(pod.Spec.TopologySpreadConstraints) > 0
	if !own && ownerOf(pod) != "" {
		owner = string(ownerOf(pod))
		soft = []corev1.TopologySpreadConstraint{
			{MaxSkew: 3, TopologyKey: corev1.LabelHostname}, {MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone},
		}
	}
	if len(soft) == 0 {
		return nil
	}
	ignored := map[string]bool{}
	for _, n := range feasible {
		ignored[n.Name] = own && !hasAll(n, soft)
	}
	raw := map[string]float64{}
	for i := range soft {
		c := &soft[i]
		s := refSelector(c, pod)
		values := map[string]int{}
		hosts := 0
		for _, n := range feasible {
			if !ignored[n.Name] {
				values[n.Labels[c.TopologyKey]] = 0
				hosts++
			}
		}
		for _, n := range r.nodes {
			if own && !hasAll(n, soft) || !r.included(pod, n, c) {
				continue
			}
			if _, ok := values[n.Labels[c.TopologyKey]]; ok {
				values[n.Labels[c.TopologyKey]] += r.matching(n.Name, pod.Namespace, s, owner)
			}
		}
		domains := len(values)
		if c.TopologyKey == corev1.LabelHostname {
			domains = hosts
		}
		for _, n := range feasible {
			value, ok := n.Labels[c.TopologyKey]
			if ignored[n.Name] || !ok {
				continue
			}
			count := values[value]
			if c.TopologyKey == corev1.LabelHostname {
				count = r.matching(n.Name, pod.Namespace, s, owner)
			}
			raw[n.Name] += float64(count)*math.Log(float64(domains+2)) + float64(c.MaxSkew-1)
		}
	}
	lo, hi := int64(math.MaxInt64), int64(0)
	for _, n := range feasible {
		if !ignored[n.Name] {
			k := int64(math.Round(raw[n.Name]))
			lo, hi = min(lo, k), max(hi, k)
		}
	}
	out := map[string]int64{}
	for _, n := range feasible {
		switch {
		case ignored[n.Name]:
		case hi == 0:
			out[n.Name] = 100
		default:
			out[n.Name] = 100 * (hi + lo - int64(math.Round(raw[n.Name]))) / hi
		}
	}
	return out
}
