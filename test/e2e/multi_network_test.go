package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Pods of three nodes reach each other by address, Service and name, and the user reaches them all: over VXLAN, and by plain routes.

func TestPodsOfThreeNodesOverVXLAN(t *testing.T) {
	t.Parallel()
	if d := devCluster(t, 3, 1, "--overlay", "vxlan"); d != nil {
		testNetwork(t, d, true)
	}
}

func TestPodsOfThreeNodesByPlainRoutes(t *testing.T) {
	t.Parallel()
	if d := devCluster(t, 3, 1, "--overlay", "routes"); d != nil {
		testNetwork(t, d, false)
	}
}

// spread puts one pod of the Deployment web on each node.
const spread = `
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Honor, labelSelector: {matchLabels: {app: web}}}
`

// spreadWeb is the Deployment web on several nodes.
func spreadWeb(replicas int) string {
	return strings.TrimRight(strings.Replace(web, "replicas: 2", fmt.Sprintf("replicas: %d", replicas), 1), "\n") + spread
}

// clientOn is the pod client, on one node: client-1 on node-1.
func clientOn(i int) string {
	m := strings.Replace(client, "name: client,", fmt.Sprintf("name: client-%d,", i), 1)
	return strings.Replace(m, "spec:\n", fmt.Sprintf("spec:\n  nodeSelector: {kubernetes.io/hostname: node-%d}\n", i), 1)
}

const (
	headless = `
apiVersion: v1
kind: Service
metadata: {name: web-each}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080, targetPort: http}]
`
	ofClients = `
apiVersion: v1
kind: Service
metadata: {name: clients}
spec:
  selector: {app: client}
  ports: [{port: 80, targetPort: 8080}]
`
)

func testNetwork(t *testing.T, d *dev, tunnels bool) {
	ns := setUp(t, []string{"pod/client-1", "pod/client-2", "pod/client-3"}, spreadWeb(3), nodePort, headless, ofClients, clientOn(1), clientOn(2), clientOn(3))
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	svc := service(t, ns, "web")
	clusterIP := svc.Spec.ClusterIP
	from := func(i int, args ...string) (string, error) {
		return run("", append([]string{"-n", ns, "exec", fmt.Sprintf("client-%d", i), "--"}, args...)...)
	}
	get := func(i int, url string) (string, error) { return from(i, "timeout", "5", "wget", "-q", "-O", "-", url) }
	var addrs, backends, ips, clients [4]string
	for i := 1; i <= 3; i++ {
		n := d.node(i)
		addrs[i] = n.addr(t)
		pods := podsOn(t, ns, n.name)
		for _, p := range pods {
			if strings.HasPrefix(p, "web-") {
				backends[i], ips[i] = p, podIP(t, ns, p)
			}
		}
		clients[i] = podIP(t, ns, fmt.Sprintf("client-%d", i))
		if backends[i] == "" {
			t.Fatalf("no pod of web is on %s: %v", n.name, pods)
		}
		out, err := exec.Command("nsenter", "--net="+filepath.Join(cluster.dataDir, "netns", n.name), "ip", "-o", "link", "show", "type", "vxlan").CombinedOutput()
		if err != nil || (len(out) > 0) != tunnels {
			t.Errorf("VXLAN links of %s: %q %v; want some: %v", n.name, out, err, tunnels)
		}
	}

	for i := 1; i <= 3; i++ {
		n, me := d.node(i), clients[i]
		for j := 1; j <= 3; j++ {
			there := ips[j]
			mustSay(t, fmt.Sprintf("a pod of node-%d by its address from one of node-%d, which keeps its own", j, i), backends[j]+" "+me+":",
				func() (string, error) { return get(i, "http://"+there+":8080/") })
			mustSay(t, fmt.Sprintf("a pod of node-%d from node-%d itself", j, i), backends[j]+" ", func() (string, error) { return n.fetch(t, "http://"+there+":8080/") })
		}
		mustSay(t, "a Service by its name from "+n.name, me+":", func() (string, error) { return get(i, "http://web/") })
		mustSay(t, "a NodePort of another node from a pod of "+n.name, "v1 web-",
			func() (string, error) {
				return get(i, fmt.Sprintf("http://%s:%d/", addrs[i%3+1], svc.Spec.Ports[0].NodePort))
			})
		reachesAll(t, "the ClusterIP from "+n.name, backends[1:], func() (string, error) { return n.fetch(t, "http://"+clusterIP+"/") })
		// A pod's own turn comes, too: it reaches itself through its Service.
		reachesAll(t, "the Service of the clients from client "+n.name, []string{"client-1", "client-2", "client-3"}, func() (string, error) { return get(i, "http://clients/") })
		reachesAll(t, "the NodePort of "+n.name+" from this machine", backends[1:],
			func() (string, error) {
				return fetch(fmt.Sprintf("http://%s:%d/", addrs[i], svc.Spec.Ports[0].NodePort))
			})
		reachesAll(t, "the UDP NodePort of "+n.name+" from this machine", backends[1:],
			func() (string, error) { return askUDP(fmt.Sprintf("%s:%d", addrs[i], svc.Spec.Ports[1].NodePort)) })
		reachesAll(t, "UDP by ClusterIP from "+n.name, backends[1:], func() (answer string, err error) {
			n.inside(t, func() { answer, err = askUDP(clusterIP + ":80") })
			return answer, err
		})
		names(t, n, ns, ips[1:])
	}
	guarded(t, ns, ips[1:], from)
	sizes(t, d, ips[3], clients[3], from)
	streams(t, ns, backends)
}

// fromFriends lets friends alone reach the pods of web.
const fromFriends = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {friend: "yes"}}}]}]
`

// guarded closes the pods of web on all nodes to all but one client, and opens them again.
func guarded(t *testing.T, ns string, ips []string, from func(int, ...string) (string, error)) {
	kubectl(t, "-n", ns, "label", "pod", "client-1", "friend=yes")
	apply(t, ns, fromFriends)
	get := func(i int, ip, patience string) (string, error) {
		return from(i, "timeout", patience, "wget", "-q", "-O", "-", "http://"+ip+":8080/")
	}
	for _, ip := range ips {
		eventually(t, 10*time.Second, "client-2 is kept from "+ip, func() error {
			if out, err := get(2, ip, "1"); err == nil {
				return fmt.Errorf("it gets %q", out)
			}
			return nil
		})
		mustSay(t, "the friend, client-1, reaches "+ip, "web-", func() (string, error) { return get(1, ip, "5") })
	}
	kubectl(t, "-n", ns, "delete", "networkpolicy", "friends")
	for _, ip := range ips {
		mustSay(t, "without the policy client-2 reaches "+ip, "web-", func() (string, error) { return get(2, ip, "5") })
	}
}

// reachesAll asks until every one of them has answered.
func reachesAll(t *testing.T, what string, all []string, ask func() (string, error)) {
	t.Helper()
	seen := map[string]bool{}
	eventually(t, 20*time.Second, what, func() error {
		answer, err := ask()
		if err != nil {
			return err
		}
		var missing []string
		for _, a := range all {
			if strings.Contains(answer, a) {
				seen[a] = true
			}
			if !seen[a] {
				missing = append(missing, a)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("%v have not answered yet", missing)
		}
		return nil
	})
}

// names asks the DNS server of a node for a headless Service.
func names(t *testing.T, n devNode, ns string, ips []string) {
	t.Helper()
	name := "web-each." + ns + ".svc.cluster.local."
	for _, q := range []struct {
		name  string
		qtype uint16
	}{{name, dns.TypeA}, {"_http._tcp." + name, dns.TypeSRV}} {
		var answers []string
		var err error
		eventually(t, 10*time.Second, "three answers of "+n.name, func() error {
			n.inside(t, func() { answers, _, err = lookUp("udp", q.name, q.qtype) })
			if err == nil && len(answers) != len(ips) {
				err = fmt.Errorf("%v", answers)
			}
			return err
		})
		all := strings.Join(answers, " ")
		for _, ip := range ips {
			if q.qtype == dns.TypeA && !strings.Contains(all, "A "+ip) || q.qtype == dns.TypeSRV && strings.Count(all, " 8080 ") != len(ips) {
				t.Errorf("%s says %v for %s; the pods are at %v", n.name, answers, q.name, ips)
			}
		}
	}
}

// sizes sends what fills packets, what needs several, and a lot.
func sizes(t *testing.T, d *dev, there, client string, from func(int, ...string) (string, error)) {
	for _, size := range []int{1200, 1372, 1400, 1428, 1450, 1473, 1900} {
		payload := strings.Repeat("x", size)
		mustSay(t, fmt.Sprintf("%d bytes of UDP to another node", size), payload[:size-100], func() (answer string, err error) {
			var c net.Conn
			if c, err = d.node(1).dial(t, "udp4", there+":8080"); err != nil {
				return "", err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err = c.Write([]byte(payload)); err != nil {
				return "", err
			}
			buf := make([]byte, 4096)
			read, err := c.Read(buf)
			return string(buf[:read]), err
		})
	}
	const megabytes = 64
	if out, err := from(3, "dd", "if=/dev/zero", "of=/tmp/www/big", "bs=1M", fmt.Sprintf("count=%d", megabytes)); err != nil {
		t.Fatal(err, out)
	}
	began := time.Now()
	out, err := from(1, "sh", "-c", "timeout 60 wget -q -O - http://"+client+":8080/big | wc -c")
	if want := fmt.Sprint(megabytes << 20); err != nil || strings.TrimSpace(out) != want {
		t.Errorf("a large file from another node has %s bytes, want %s: %v", out, want, err)
	}
	took := time.Since(began)
	t.Logf("%d MiB from a pod of another node in %v, %.1f Gbit/s (busybox sends, wget and wc read)", megabytes, took.Round(time.Millisecond), float64(megabytes)*8/1024/took.Seconds())
}

// streams are logs, exec, cp and port-forward to pods of each node, and what comes back the same way: the figures of kubectl top.
func streams(t *testing.T, ns string, backends [4]string) {
	for what, want := range map[string]string{"nodes": "node-1 …m …% …Mi …% node-2 …m …% …Mi …% node-3 …m …% …Mi …%", "pods": "client-1 …m … client-2 …m … client-3 …m …"} {
		eventually(t, 60*time.Second, "kubectl top "+what, func() error {
			out, err := run("", "-n", ns, "top", what)
			if err == nil && !shows(out, want) {
				err = fmt.Errorf("it shows\n%s", out)
			}
			return err
		})
	}
	for i := 1; i <= 3; i++ {
		pod := fmt.Sprintf("client-%d", i)
		if out := kubectl(t, "-n", ns, "logs", backends[i]); !strings.Contains(out, backends[i]+" listens on") {
			t.Errorf("the log of %s on node-%d is %q", backends[i], i, out)
		}
		if out := kubectl(t, "-n", ns, "exec", pod, "--", "hostname"); strings.TrimSpace(out) != pod {
			t.Errorf("exec in %s says %q", pod, out)
		}
		dir := t.TempDir()
		content := strings.Repeat("some content\n", 50_000)
		if err := os.WriteFile(filepath.Join(dir, "in"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "cp", filepath.Join(dir, "in"), ns+"/"+pod+":/tmp/in")
		kubectl(t, "cp", ns+"/"+pod+":/tmp/in", filepath.Join(dir, "out"))
		if got, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || string(got) != content {
			t.Errorf("kubectl cp to %s and back: %d bytes arrived, want %d; %v", pod, len(got), len(content), err)
		}
		f := start(t, "-n", ns, "port-forward", "pod/"+backends[i], ":8080")
		f.waitFor(t, 10*time.Second, "Forwarding from 127.0.0.1:")
		m := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindString(f.String())
		if got, err := fetch("http://" + m + "/"); err != nil || !strings.HasPrefix(got, "v1 "+backends[i]) {
			t.Errorf("through port-forward to node-%d: %q, %v\n%s", i, got, err, f)
		}
	}
}
