package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// How machines come into a cluster, what they may do in it, and how they leave.
func TestMachinesJoinAndLeave(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 3, 1)
	if d == nil {
		return
	}
	t.Run("who has no right token is refused", func(t *testing.T) { testTokens(t, d) })
	t.Run("the certificate of a node is for what its pods need", func(t *testing.T) { testNodeRights(t, d) })
	t.Run("draining respects a PodDisruptionBudget", func(t *testing.T) { testDrain(t, d) })
	t.Run("a machine leaves no trace, and comes back", func(t *testing.T) { testLeaving(t, d) })
	t.Run("a deleted node ends its pods, and joins again", func(t *testing.T) { testDeletedNode(t, d) })
}

// command is a command in the node's network namespace.
func (n devNode) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + filepath.Join(cluster.dataDir, "netns", n.name)}, args...)...)
}

func testTokens(t *testing.T, d *dev) {
	server := "https://" + d.node(1).addr(t) + ":6443"
	create := func(args ...string) string {
		out, err := exec.Command(cluster.bin, append([]string{"token", "create", "--data-dir", d.node(1).dir}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	good := create()
	pin, bearer, ok := strings.Cut(good, "::")
	id, secret, _ := strings.Cut(bearer, ".")
	if !ok {
		t.Fatalf("the token %q has no ::", good)
	}
	short := create("--ttl", "1s")
	removed := create()
	if out, err := exec.Command(cluster.bin, "token", "rm", removed, "--data-dir", d.node(1).dir).CombinedOutput(); err != nil {
		t.Fatalf("knarr token rm: %v\n%s", err, out)
	}
	eventually(t, 10*time.Second, "a token's time is over", func() error {
		out, err := exec.Command(cluster.bin, "token", "ls", "--data-dir", d.node(1).dir).CombinedOutput()
		// It may have been removed already.
		if _, bearer, _ := strings.Cut(short, "::"); err == nil && strings.Contains(string(out), bearer[:6]) && !shows(string(out), bearer[:6]+" over") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	other := "K10" + strings.Repeat("ab", 32)
	for _, tc := range []struct{ what, token, server, want string }{
		{"no token", "", server, "this machine is no member of a cluster"},
		{"no such form", "abcdef.0123456789abcdef", server, "this is no token of Knarr's"},
		{"another secret", pin + "::" + id + "." + mirrored(secret), server, "401"},
		{"another cluster's", other + "::" + bearer, server, "this server is not of the cluster that the token is for"},
		{"one whose time is over", short, server, "401"},
		{"one that was removed", removed, server, "401"},
		{"no server there", good, "https://" + outsideAddr + ":6443", "joining the cluster at"},
	} {
		dir := filepath.Join(cluster.dataDir, "stranger")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := d.node(2).command(ctx, "env", "KNARR_TOKEN="+tc.token, cluster.bin, "agent", "--server", tc.server, "--data-dir", dir, "--node-name", "stranger").CombinedOutput()
		cancel()
		if err == nil || ctx.Err() != nil && ctx.Err() != context.Canceled || !strings.Contains(string(out), tc.want) && !(tc.want == "401" && strings.Contains(string(out), "Unauthorized")) {
			t.Errorf("knarr agent with %s: %v, want %q in\n%s", tc.what, err, tc.want, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	if out := kubectl(t, "get", "nodes,csr", "-o", "name"); strings.Contains(out, "stranger") {
		t.Errorf("the stranger has left something: %s", out)
	}
}

// mirrored is a secret of the same form that is another one.
func mirrored(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] = s[len(s)-1-i]
	}
	if string(b) == s {
		b[0] = 'a' + (b[0]-'a'+1)%26
	}
	return string(b)
}

// as is a client with a node's certificate.
func (n devNode) as(t *testing.T) *http.Client {
	t.Helper()
	pair, err := os.ReadFile(filepath.Join(n.dir, "agent", "client.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(n.dir, "agent", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}}
}

func testNodeRights(t *testing.T, d *dev) {
	const secretPod = `
apiVersion: v1
kind: Secret
metadata: {name: of-NODE}
stringData: {k: v}
---
apiVersion: v1
kind: Pod
metadata: {name: p-NODE}
spec:
  nodeSelector: {kubernetes.io/hostname: NODE}
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command: [sleep, "86400"]
    env: [{name: K, valueFrom: {secretKeyRef: {name: of-NODE, key: k}}}]
`
	ns := setUp(t, []string{"pod/p-node-2", "pod/p-node-3"}, strings.ReplaceAll(secretPod, "NODE", "node-2"), strings.ReplaceAll(secretPod, "NODE", "node-3"))
	c, host := d.node(2).as(t), "https://"+d.node(1).addr(t)+":6443"
	const merge = "application/merge-patch+json"
	for _, tc := range []struct {
		what, method, path, body string
		code                     int
	}{
		{"a Secret of a pod of its own", "GET", "/api/v1/namespaces/" + ns + "/secrets/of-node-2", "", 200},
		{"a Secret of another node's pod", "GET", "/api/v1/namespaces/" + ns + "/secrets/of-node-3", "", 403},
		{"all Secrets", "GET", "/api/v1/secrets", "", 403},
		{"all Secrets of a namespace", "GET", "/api/v1/namespaces/" + ns + "/secrets", "", 403},
		{"its own Node", "GET", "/api/v1/nodes/node-2", "", 200},
		{"its own Node's labels, within limits", "PATCH", "/api/v1/nodes/node-2", `{"metadata":{"labels":{"node-restriction.kubernetes.io/x":"y"}}}`, 403},
		{"its own Node's taints", "PATCH", "/api/v1/nodes/node-2", `{"spec":{"taints":[{"key":"x","effect":"NoSchedule"}]}}`, 403},
		{"another Node", "PATCH", "/api/v1/nodes/node-3/status", `{"status":{"phase":"Running"}}`, 403},
		{"another Node's Lease", "PATCH", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-3", `{"spec":{"holderIdentity":"node-2"}}`, 403},
		{"the status of another node's pod", "PATCH", "/api/v1/namespaces/" + ns + "/pods/p-node-3/status", `{"status":{"phase":"Failed"}}`, 403},
		{"another node's pod", "DELETE", "/api/v1/namespaces/" + ns + "/pods/p-node-3", "", 403},
		{"a token for a pod of another node", "POST", "/api/v1/namespaces/" + ns + "/serviceaccounts/default/token",
			`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"boundObjectRef":{"kind":"Pod","apiVersion":"v1","name":"p-node-3"}}}`, 403},
		{"a command in another node's pod", "POST", "/api/v1/namespaces/" + ns + "/pods/p-node-3/exec?command=id&stdout=true", "", 403},
		{"a Deployment", "GET", "/apis/apps/v1/namespaces/" + ns + "/deployments", "", 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, host+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", map[bool]string{true: merge, false: "application/json"}[tc.method == "PATCH"])
		resp, err := c.Do(req)
		if err != nil {
			t.Errorf("%s: %v", tc.what, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tc.code {
			t.Errorf("node-2 asks for %s: %s %s gets %s, want %d\n%.300s", tc.what, tc.method, tc.path, resp.Status, tc.code, body)
		}
	}
}

func testDrain(t *testing.T, d *dev) {
	const budget = `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  minAvailable: 5
  selector: {matchLabels: {app: web}}
`
	ns := setUp(t, []string{"pod/client-2"}, strings.Replace(web, "replicas: 2", "replicas: 6", 1), nodePort, budget, clientOn(2))
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	if len(podsOn(t, ns, "node-2")) < 2 {
		t.Fatalf("node-2 has too few pods to show anything: %v", podsOn(t, ns, "node-2"))
	}
	if out := refused(t, "", "drain", "node-2", "--timeout=60s"); !strings.Contains(out, "use --force to override): "+ns+"/client-2") {
		t.Errorf("draining a node with a pod that nobody would make again: %s", out)
	}
	counts := start(t, "-n", ns, "get", "deploy", "web", "-w", "--no-headers", "-o", "custom-columns=A:.status.availableReplicas")
	counts.waitFor(t, 10*time.Second, "6")
	if out := kubectl(t, "drain", "node-2", "--force", "--timeout=90s"); !strings.Contains(out, "node/node-2 drained") {
		t.Errorf("kubectl drain: %s", out)
	}
	if left := podsOn(t, ns, "node-2"); len(left) > 0 {
		t.Errorf("after kubectl drain node-2 has %v", left)
	}
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	for _, n := range strings.Fields(counts.String()) {
		if n != "5" && n != "6" {
			t.Errorf("while the node was drained %s pods were available, and the budget demands 5", n)
		}
	}
	if out := kubectl(t, "get", "node", "node-2"); !shows(out, "node-2 Ready,SchedulingDisabled") {
		t.Errorf("a drained node shows as\n%s", out)
	}
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=9")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	if on := podsOn(t, ns, "node-2"); len(on) > 0 {
		t.Errorf("a cordoned node got %v", on)
	}
	kubectl(t, "uncordon", "node-2")
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=12")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	if len(podsOn(t, ns, "node-2")) == 0 {
		t.Error("after kubectl uncordon the node got no pod")
	}
}

// traces are what is in the node's network namespace and its control groups, mounts and processes.
func (n devNode) traces(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, c := range []string{"ip -o link", "ip -o -4 addr", "ip -4 route", "ip rule", "nft list tables"} {
		b, err := n.command(t.Context(), strings.Fields(c)...).Output()
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		for line := range strings.Lines(string(b)) {
			if m := regexp.MustCompile(`^\d+: (\S+:|\S+ +inet \S+)`).FindString(line); m != "" && !strings.HasPrefix(c, "ip rule") {
				line = m // without counters and flags
			}
			out = append(out, c+": "+strings.TrimSpace(line))
		}
	}
	now, err := observeMachine()
	if err != nil {
		t.Fatal(err)
	}
	for line := range now {
		if kind, _, _ := strings.Cut(line, " "); (kind == "mount" || kind == "cgroup" || kind == "process") &&
			(strings.Contains(line, n.dir+"/") || strings.Contains(line, "knarr-"+instance(n.dir))) {
			out = append(out, line)
		}
	}
	return out
}

func testLeaving(t *testing.T, d *dev) {
	n := d.node(3)
	ns := setUp(t, []string{"pod/client-3"}, clientOn(3))
	if len(n.traces(t)) < 15 {
		t.Fatalf("a node with a pod should show more: %v", n.traces(t))
	}
	if out, err := n.command(t.Context(), cluster.bin, "down", "--data-dir", n.dir).CombinedOutput(); err != nil {
		t.Fatalf("knarr down: %v\n%s", err, out)
	}
	for _, trace := range n.traces(t) {
		if !regexp.MustCompile(`^ip -o (link: \d+: (lo|eth0@\w+):|-4 addr: \d+: (lo|eth0) +inet (127|10\.77)\.)|^ip -4 route: (default via|10\.77\.\d+\.0/24 dev eth0)|^ip rule: (0|32766|32767):`).MatchString(trace) {
			t.Errorf("left by knarr down: %s", trace)
		}
	}
	d.up(t)
	// It is a node again; the pod is as it was told to be.
	eventually(t, 60*time.Second, "the pod runs again", func() error {
		out, err := run("", "-n", ns, "exec", "client-3", "--", "hostname")
		if err == nil && strings.TrimSpace(out) != "client-3" {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
}

func testDeletedNode(t *testing.T, d *dev) {
	n := d.node(2)
	ns := setUp(t, nil, spreadWeb(3))
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	if len(podsOn(t, ns, n.name)) == 0 {
		t.Fatalf("%s has no pod", n.name)
	}
	uid := kubectl(t, "get", "node", n.name, "-o", "jsonpath={.metadata.uid}")
	kubectl(t, "delete", "node", n.name)
	eventually(t, 60*time.Second, "its containers have ended", func() error {
		found, err := filepath.Glob(filepath.Join(n.dir, "containerd/state/io.containerd.runtime.v2.task/k8s.io/*"))
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%d tasks run", len(found))
		}
		return err
	})
	if _, err := run("", "get", "node", n.name); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("a deleted node came back by itself: %v", err)
	}
	out := d.up(t)
	if !strings.Contains(out, "node-2 is Ready") {
		t.Errorf("knarr dev up says:\n%s", out)
	}
	var node corev1.Node
	get(t, &node, "get", "node", n.name)
	if string(node.UID) == uid {
		t.Error("the node that joined again is the old one")
	}
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=6")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	if len(podsOn(t, ns, n.name)) == 0 {
		t.Error("the node that joined again got no pod")
	}
}
