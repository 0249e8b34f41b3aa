package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Drills: what fails in real clusters, several times each. Times are reported; what is asserted about them is the median, and a bound that
// only a machine far too busy would miss.

// drillRounds is how often each drill is done: KNARR_DRILL_ROUNDS, or 3. make drills sets 10.
func drillRounds(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("KNARR_DRILL_ROUNDS"), "3"))
	if err != nil || n < 1 {
		t.Fatalf("KNARR_DRILL_ROUNDS: want a number, got %q", os.Getenv("KNARR_DRILL_ROUNDS"))
	}
	return n
}

// impatient is what pods have that want to be replaced soon after their node is lost.
const impatient = `
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
`

func impatientWeb(replicas int) string {
	return strings.TrimRight(strings.Replace(web, "replicas: 2", fmt.Sprintf("replicas: %d", replicas), 1), "\n") + impatient
}

// reader reads objects without a process for each.
type reader struct {
	client *http.Client
	host   string
}

func newReader(t testing.TB) *reader {
	c, host := api(t)
	return &reader{c, host}
}

func (r *reader) get(path string, into any) error {
	resp, err := r.client.Get(r.host + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// status is a node's condition Ready.
func (r *reader) status(node string) (corev1.ConditionStatus, error) {
	var n corev1.Node
	if err := r.get("/api/v1/nodes/"+node, &n); err != nil {
		return "", err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status, nil
		}
	}
	return "", fmt.Errorf("%s has no condition Ready", node)
}

func (r *reader) pods(ns string) ([]corev1.Pod, error) {
	var l corev1.PodList
	err := r.get("/api/v1/namespaces/"+ns+"/pods", &l)
	return l.Items, err
}

// endpoints are the addresses of the ready endpoints of a Service.
func (r *reader) endpoints(ns, service string) ([]string, error) {
	var l discoveryv1.EndpointSliceList
	if err := r.get("/apis/discovery.k8s.io/v1/namespaces/"+ns+"/endpointslices?labelSelector=kubernetes.io/service-name%3D"+service, &l); err != nil {
		return nil, err
	}
	var out []string
	for _, s := range l.Items {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				out = append(out, e.Addresses...)
			}
		}
	}
	return out, nil
}

// within waits like eventually, for goroutines other than the test's.
func within(timeout time.Duration, check func() error) (time.Duration, error) {
	began := time.Now()
	for {
		err := check()
		took := time.Since(began)
		if err == nil {
			return took, nil
		}
		if took > timeout {
			return took, fmt.Errorf("not within %v: %w", timeout, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// times are the durations of one thing over the rounds.
type times []time.Duration

func (d times) median() time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// report logs them and holds them against bounds.
func (d times) report(t testing.TB, what string, median, most time.Duration) {
	t.Helper()
	if len(d) == 0 {
		t.Errorf("%s was never measured", what)
		return
	}
	worst := slices.Max(d)
	t.Logf("%s: median %v, longest %v of %d", what, d.median().Round(time.Millisecond), worst.Round(time.Millisecond), len(d))
	if d.median() > median || worst > most {
		t.Errorf("%s: median %v and longest %v, want at most %v and %v", what, d.median(), worst, median, most)
	}
}

// replaced checks that a Deployment has all its pods Ready on nodes other than those given.
func replaced(r *reader, ns string, replicas int, lost ...string) error {
	pods, err := r.pods(ns)
	if err != nil {
		return err
	}
	n := 0
	for _, p := range pods {
		if p.Labels["app"] == "web" && p.DeletionTimestamp == nil && !slices.Contains(lost, p.Spec.NodeName) && ready(&p) {
			n++
		}
	}
	if n != replicas {
		return fmt.Errorf("%d pods are Ready elsewhere, want %d", n, replicas)
	}
	return nil
}

// settledNode checks that a node runs the pods that the API has there, and nothing else.
func settledNode(r *reader, n devNode) error {
	var all corev1.PodList
	if err := r.get("/api/v1/pods?fieldSelector=spec.nodeName%3D"+n.name, &all); err != nil {
		return err
	}
	tasks := 0
	for _, p := range all.Items {
		if p.DeletionTimestamp != nil {
			return fmt.Errorf("pod %s has not ended", p.Name)
		}
		if !ready(&p) {
			return fmt.Errorf("pod %s is not Ready", p.Name)
		}
		tasks += 1 + len(p.Spec.Containers) // and the sandbox
	}
	for what, want := range map[string]int{
		"containerd/state/io.containerd.runtime.v2.task/k8s.io/*": tasks,
		"containerd/state/io.containerd.grpc.v1.cri/netns/*":      len(all.Items),
		"network/ipam/*": len(all.Items),
		"pods/*":         len(all.Items),
	} {
		found, err := filepath.Glob(filepath.Join(n.dir, what))
		if err != nil || len(found) != want {
			return fmt.Errorf("%s has %d of %s, want %d for its %d pods (%v)", n.name, len(found), what, want, len(all.Items), err)
		}
	}
	return nil
}

func TestDrillAgentIsKilled(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 3, 1)
	if d == nil {
		return
	}
	ns := rollOut(t, spreadWeb(6), nodePort)
	before := containers(t, ns)
	r := newReader(t)
	urls := serviceURLs(t, ns, "web")
	for i := 2; i <= 3; i++ { // the NodePort of each node
		urls = append(urls, strings.Replace(urls[1], d.node(1).addr(t), d.node(i).addr(t), 1))
	}
	requests := load(t, urls[1:])
	var back times
	for round := range drillRounds(t) {
		n := d.node(2 + round%2)
		n.crash(t)
		began := time.Now()
		n.start(t) // waits until it was heard of
		back = append(back, time.Since(began))
		if status, err := r.status(n.name); err != nil || status != corev1.ConditionTrue {
			t.Errorf("round %d: after its agent was killed and started again, %s is Ready %s %v", round, n.name, status, err)
		}
	}
	requests.stop(t)
	untouched(t, ns, before)
	for i := 2; i <= 3; i++ {
		eventually(t, 20*time.Second, "nothing is left over", func() error { return settledNode(r, d.node(i)) })
	}
	back.report(t, "kill -9 of an agent to Ready again", 10*time.Second, 30*time.Second)
	// The agents that came back do their work.
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=9")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
}

func TestDrillNodeDies(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 4, 1)
	if d == nil {
		return
	}
	const replicas = 8
	ns := setUp(t, nil, impatientWeb(replicas), nodePort)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	r := newReader(t)
	var noticed, moved, back times
	for round := range drillRounds(t) {
		// The agent with the most pods.
		n := d.node(2)
		for i := 3; i <= 4; i++ {
			if len(podsOn(t, ns, d.node(i).name)) > len(podsOn(t, ns, n.name)) {
				n = d.node(i)
			}
		}
		victims := len(podsOn(t, ns, n.name))
		if victims == 0 {
			t.Fatalf("round %d: no agent has a pod", round)
		}
		n.cut(t) // kill begins with that, and takes a moment
		began := time.Now()
		n.kill(t)
		if _, err := within(60*time.Second, func() error { return notTrue(r, n.name) }); err != nil {
			t.Fatalf("round %d: %s died: %v", round, n.name, err)
		}
		noticed = append(noticed, time.Since(began))
		if _, err := within(90*time.Second, func() error { return replaced(r, ns, replicas, n.name) }); err != nil {
			t.Fatalf("round %d: %d pods of %s: %v", round, victims, n.name, err)
		}
		moved = append(moved, time.Since(began))

		began = time.Now()
		n.start(t)
		back = append(back, time.Since(began))
		eventually(t, 60*time.Second, n.name+" has what the API says, and no taint", func() error {
			var node corev1.Node
			if err := r.get("/api/v1/nodes/"+n.name, &node); err != nil {
				return err
			}
			if len(node.Spec.Taints) > 0 {
				return fmt.Errorf("taints %v", node.Spec.Taints)
			}
			return settledNode(r, n)
		})
	}
	noticed.report(t, "death of a node to NotReady", 10*time.Second, 40*time.Second)
	moved.report(t, "death of a node to its pods Ready elsewhere", 15*time.Second, 60*time.Second)
	back.report(t, "start of a dead node to Ready", 10*time.Second, 40*time.Second)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
}

func notTrue(r *reader, node string) error {
	status, err := r.status(node)
	if err == nil && status == corev1.ConditionTrue {
		err = fmt.Errorf("%s is Ready", node)
	}
	return err
}

// cutTime is how long a node is off the network.
const cutTime = time.Minute

// Nodes are cut off for a minute each, one after the other, so that never half of them are away: then Kubernetes would evict
// nobody (https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction).
func TestDrillNodeIsCutOff(t *testing.T) {
	t.Parallel()
	const every = 9 * time.Second
	rounds := drillRounds(t)
	agents := rounds + 3
	d := devCluster(t, 1+agents, 1)
	if d == nil {
		return
	}
	replicas := 1 + agents
	ns := setUp(t, nil, impatientWeb(replicas)+spread, nodePort, headless)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	r := newReader(t)
	var noticed, listed, names, rules, moved, back times
	healed := make(chan error, rounds)
	backs := make(chan time.Duration, rounds)
	for round := range rounds {
		n := d.node(2 + round)
		pods := podsOn(t, ns, n.name)
		if len(pods) == 0 {
			t.Fatalf("%s has no pod", n.name)
		}
		ip := podIP(t, ns, pods[0])
		n.cut(t)
		began := time.Now()
		go func() {
			time.Sleep(cutTime - time.Since(began))
			took, err := comesBack(r, n)
			backs <- took
			healed <- err
		}()
		s := watchLoss(t, d, r, ns, n, ip)
		noticed, listed = append(noticed, s.noticed.Sub(began)), append(listed, s.slice.Sub(s.noticed))
		names, rules = append(names, s.name.Sub(s.noticed)), append(rules, s.rule.Sub(s.noticed))
		if _, err := within(60*time.Second, func() error {
			now, err := r.pods(ns)
			if err != nil {
				return err
			}
			for _, p := range now {
				if p.Name == pods[0] && p.DeletionTimestamp == nil {
					return fmt.Errorf("%s has not been evicted", p.Name)
				}
			}
			return replaced(r, ns, replicas, cutNow(d, r)...)
		}); err != nil {
			t.Fatalf("round %d: pods of %s: %v", round, n.name, err)
		}
		moved = append(moved, time.Since(began))
		time.Sleep(every - time.Since(began)) // paces the drill; nothing is concluded from it
	}
	for range rounds {
		back = append(back, <-backs)
		if err := <-healed; err != nil {
			t.Error(err)
		}
	}
	noticed.report(t, "cut to NotReady", 10*time.Second, 40*time.Second)
	listed.report(t, "NotReady to its endpoints out of the EndpointSlices", time.Second, 10*time.Second)
	names.report(t, "NotReady to its endpoints out of DNS", time.Second, 10*time.Second)
	rules.report(t, "NotReady to its endpoints out of another node's nftables", time.Second, 10*time.Second)
	moved.report(t, "cut to its pods Ready elsewhere", 15*time.Second, 60*time.Second)
	back.report(t, "network back to Ready", 10*time.Second, 40*time.Second)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
}

// cutNow are the nodes that are not Ready.
func cutNow(d *dev, r *reader) (out []string) {
	for i := range d.nodes {
		if name := d.node(i + 1).name; notTrue(r, name) == nil {
			out = append(out, name)
		}
	}
	return out
}

// comesBack puts a node back on the network and waits until it is as it should be.
func comesBack(r *reader, n devNode) (took time.Duration, err error) {
	if _, err := knarr("dev", "heal", n.name); err != nil {
		return 0, err
	}
	took, err = within(60*time.Second, func() error {
		if notTrue(r, n.name) == nil {
			return fmt.Errorf("%s is not Ready", n.name)
		}
		return nil
	})
	if err != nil {
		return took, err
	}
	if _, err := within(60*time.Second, func() error { return settledNode(r, n) }); err != nil {
		return took, fmt.Errorf("%s is back on the network: %w", n.name, err)
	}
	return took, nil
}

// signs are when a loss showed.
type signs struct{ noticed, slice, name, rule time.Time }

// watchLoss waits until the loss of a node, which has the pod of that address, has shown everywhere.
func watchLoss(t *testing.T, d *dev, r *reader, ns string, n devNode, ip string) (s signs) {
	t.Helper()
	note := func(at *time.Time, gone bool) {
		if gone && at.IsZero() {
			*at = time.Now()
		}
	}
	_, err := within(60*time.Second, func() error {
		note(&s.noticed, notTrue(r, n.name) == nil)
		addrs, err := r.endpoints(ns, "web")
		note(&s.slice, err == nil && !slices.Contains(addrs, ip))
		var answers []string
		var dnsErr error
		d.node(1).inside(t, func() { answers, _, dnsErr = lookUp("udp", "web-each."+ns+".svc.cluster.local.", dns.TypeA) })
		note(&s.name, dnsErr == nil && !slices.Contains(answers, "A "+ip))
		out, nftErr := exec.Command("nsenter", "--net="+filepath.Join(cluster.dataDir, "netns", d.node(1).name), "nft", "list", "ruleset").Output()
		note(&s.rule, nftErr == nil && !strings.Contains(string(out), ": "+ip+" . 8080"))
		if s.noticed.IsZero() || s.slice.IsZero() || s.name.IsZero() || s.rule.IsZero() {
			return fmt.Errorf("since it is off the network: NotReady %v, out of slices %v, out of DNS %v, out of nftables %v (%v %v %v)",
				!s.noticed.IsZero(), !s.slice.IsZero(), !s.name.IsZero(), !s.rule.IsZero(), err, dnsErr, nftErr)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	return s
}
