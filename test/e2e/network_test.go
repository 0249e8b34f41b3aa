package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// client is a pod to send requests from, which also serves its host name on port 8080.
const client = `
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: docker.io/library/busybox:1
    command: [sh, -c, "mkdir /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"]
    resources: {requests: {cpu: 5m, memory: 8Mi}}
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`

// setUp puts manifests into a new namespace and waits until the pods named are Ready.
func setUp(t testing.TB, pods []string, manifests ...string) string {
	t.Helper()
	ns := namespace(t)
	apply(t, ns, strings.Join(manifests, "\n---\n"))
	for _, p := range pods {
		kubectl(t, "-n", ns, "wait", p, "--for=condition=Ready", "--timeout=60s")
	}
	return ns
}

// rollOut puts manifests into a new namespace and waits for the Deployment web and the pod client.
func rollOut(t testing.TB, manifests ...string) string {
	t.Helper()
	ns := setUp(t, nil, append(manifests, client)...)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	kubectl(t, "-n", ns, "wait", "pod/client", "--for=condition=Ready", "--timeout=60s")
	return ns
}

// wget asks for a URL from inside of the pod client.
func wget(namespace, url string) (string, error) {
	return run("", "-n", namespace, "exec", "client", "--", "timeout", "5", "wget", "-q", "-O", "-", url)
}

// mustSay waits until fetch gets an answer that contains want; answers of others count as wrong at once.
func mustSay(t testing.TB, what, want string, fetch func() (string, error)) {
	t.Helper()
	var body string
	eventually(t, 10*time.Second, what, func() (err error) { body, err = fetch(); return err })
	if !strings.Contains(body, want) {
		t.Errorf("%s: the answer is %q, want %q in it", what, body, want)
	}
}

func podIP(t testing.TB, namespace, pod string) string {
	t.Helper()
	return kubectl(t, "-n", namespace, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
}

func service(t testing.TB, namespace, name string) corev1.Service {
	t.Helper()
	var svc corev1.Service
	get(t, &svc, "-n", namespace, "get", "service", name)
	return svc
}

func TestPodsReachEachOtherUnderTheirOwnAddresses(t *testing.T) {
	t.Parallel()
	ns := rollOut(t, web)
	me := podIP(t, ns, "client")
	for _, ip := range strings.Fields(kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}")) {
		mustSay(t, "pod to pod", me+":", func() (string, error) { return wget(ns, "http://"+ip+":8080/") })
		mustSay(t, "node to pod", "v1 web-", func() (string, error) { return fetch("http://" + ip + ":8080/") })
	}
	out := kubectl(t, "-n", ns, "exec", "client", "--", "sh", "-c", "ip -o link; ip route; cat /etc/hosts /etc/resolv.conf")
	for _, want := range []string{"eth0", "default via", me, "client", "search " + ns + ".svc.cluster.local svc.cluster.local cluster.local", "nameserver 10.96.0.10", "options ndots:5"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in what the pod sees of its network:\n%s", want, out)
		}
	}
	// The world outside sees the node, as it has no route to pods.
	var l net.Listener
	var err error
	outside(t, func() { l, err = net.Listen("tcp4", outsideAddr+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			seen <- err.Error()
			return
		}
		seen <- c.RemoteAddr().String()
		c.Close()
	}()
	_, err = wget(ns, "http://"+l.Addr().String()+"/") // it gets no answer
	select {
	case from := <-seen:
		if !strings.HasPrefix(from, machineAddr+":") {
			t.Errorf("a pod that calls the world outside is seen there as %s, want the node's %s", from, machineAddr)
		}
	default:
		t.Errorf("a pod did not reach the world outside: %v", err)
	}
}

// nodePort makes a Service of type NodePort for web.
const nodePort = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: udp, port: 80, targetPort: 8080, protocol: UDP}
`

func TestServiceIsReachedFromEverywhere(t *testing.T) {
	t.Parallel()
	ns := rollOut(t, web, nodePort)
	svc := service(t, ns, "web")
	inside := fmt.Sprintf("http://%s/", svc.Spec.ClusterIP)
	port := svc.Spec.Ports[0].NodePort
	me := podIP(t, ns, "client")

	mustSay(t, "ClusterIP from a pod, which keeps its address", me+":", func() (string, error) { return wget(ns, inside) })
	mustSay(t, "ClusterIP from the node", machineAddr+":", func() (string, error) { return fetch(inside) })
	for _, host := range []string{"127.0.0.1", machineAddr} {
		url := fmt.Sprintf("http://%s:%d/", host, port)
		mustSay(t, "NodePort on the node at "+url, machineAddr+":", func() (string, error) { return fetch(url) })
	}
	url := fmt.Sprintf("http://%s:%d/", machineAddr, port)
	mustSay(t, "NodePort from a pod", "v1 web-", func() (string, error) { return wget(ns, url) })
	mustSay(t, "NodePort from another machine, which keeps its address", outsideAddr+":", func() (string, error) { return fetchFromOutside(t, url) })

	udpPort := svc.Spec.Ports[1].NodePort
	mustSay(t, "UDP by ClusterIP", "v1 web-", func() (string, error) { return askUDP(svc.Spec.ClusterIP + ":80") })
	mustSay(t, "UDP by NodePort", "v1 web-", func() (string, error) { return askUDP(fmt.Sprintf("127.0.0.1:%d", udpPort)) })
	mustSay(t, "UDP by NodePort from another machine", outsideAddr+":", func() (answer string, err error) {
		outside(t, func() { answer, err = askUDP(fmt.Sprintf("%s:%d", machineAddr, udpPort)) })
		return answer, err
	})

	// Both pods get their share.
	seen := map[string]int{}
	for range 60 {
		body, err := fetch(inside)
		if err != nil {
			t.Fatal(err)
		}
		seen[strings.Fields(body)[1]]++
	}
	for pod, n := range seen {
		if n < 10 || len(seen) != 2 {
			t.Errorf("of 60 requests %d went to %s: %v", n, pod, seen)
		}
	}
}

func askUDP(addr string) (string, error) {
	c, err := net.Dial("udp4", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return "", err
	}
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

func TestServiceFollowsItsPods(t *testing.T) {
	t.Parallel()
	ns := rollOut(t, web, nodePort)
	svc := service(t, ns, "web")
	inside := fmt.Sprintf("http://%s/", svc.Spec.ClusterIP)
	atNode := fmt.Sprintf("http://%s:%d/", machineAddr, svc.Spec.Ports[0].NodePort)
	mustSay(t, "the Service", "v1 ", func() (string, error) { return fetch(inside) })

	// A UDP client that keeps its port must not stay with an endpoint that is gone.
	c, err := net.Dial("udp4", svc.Spec.ClusterIP+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	who := func() (string, error) {
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := c.Write([]byte("x")); err != nil {
			return "", err
		}
		buf := make([]byte, 200)
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			return "", fmt.Errorf("no answer: %w", err)
		}
		return strings.Fields(string(buf[:n]))[1], nil
	}
	var first, second string
	eventually(t, 5*time.Second, "an answer by UDP", func() (err error) { first, err = who(); return err })
	kubectl(t, "-n", ns, "delete", "pod", first, "--wait=false")
	eventually(t, 15*time.Second, "another pod answers the same UDP socket", func() (err error) {
		if second, err = who(); err == nil && second == first {
			err = fmt.Errorf("it is still %s", first)
		}
		return err
	})

	// Nobody there: refused at once, everywhere.
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=0")
	kubectl(t, "-n", ns, "wait", "pod", "-l", "app=web", "--for=delete", "--timeout=60s")
	for _, try := range []struct {
		what  string
		fetch func() (string, error)
	}{
		{"ClusterIP from the node", func() (string, error) { return fetch(inside) }},
		{"ClusterIP from a pod", func() (string, error) { return wget(ns, inside) }},
		{"NodePort from another machine", func() (string, error) { return fetchFromOutside(t, atNode) }},
		{"NodePort at 127.0.0.1", func() (string, error) { return fetch(strings.Replace(atNode, machineAddr, "127.0.0.1", 1)) }},
		{"a port that the Service does not have", func() (string, error) { return fetch(fmt.Sprintf("http://%s:81/", svc.Spec.ClusterIP)) }},
	} {
		eventually(t, 10*time.Second, try.what+" is refused", func() error {
			began := time.Now()
			body, err := try.fetch()
			switch took := time.Since(began); {
			case err == nil:
				return fmt.Errorf("it answered %q", body)
			case !strings.Contains(strings.ToLower(err.Error()), "refused"):
				return fmt.Errorf("after %v: %w", took, err)
			}
			return nil
		})
	}

	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=1")
	mustSay(t, "the Service with a pod again", "v1 ", func() (string, error) { return fetch(inside) })
	kubectl(t, "-n", ns, "delete", "service", "web")
	eventually(t, 5*time.Second, "the address of a Service that is gone is refused", func() error {
		if _, err := fetch(inside); err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
}

func TestPodReachesItselfThroughItsService(t *testing.T) {
	t.Parallel()
	ns := setUp(t, []string{"pod/client"}, client)
	kubectl(t, "-n", ns, "expose", "pod", "client", "--name=self", "--port=80", "--target-port=8080", "--type=NodePort")
	svc := service(t, ns, "self")
	mustSay(t, "by the ClusterIP", "client", func() (string, error) { return wget(ns, fmt.Sprintf("http://%s/", svc.Spec.ClusterIP)) })
	mustSay(t, "by the NodePort", "client", func() (string, error) {
		return wget(ns, fmt.Sprintf("http://%s:%d/", machineAddr, svc.Spec.Ports[0].NodePort))
	})
}

func TestSessionAffinityKeepsAClientWithItsPod(t *testing.T) {
	t.Parallel()
	ns := rollOut(t, strings.Replace(web, "replicas: 2", "replicas: 3", 1),
		strings.Replace(nodePort, "type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP", 1))
	svc := service(t, ns, "web")
	inside := fmt.Sprintf("http://%s/", svc.Spec.ClusterIP)
	atNode := fmt.Sprintf("http://%s:%d/", machineAddr, svc.Spec.Ports[0].NodePort)
	pod := func(fetch func() (string, error)) (name string) {
		eventually(t, 10*time.Second, "an answer", func() error {
			body, err := fetch()
			if err == nil {
				name = strings.Fields(body)[1]
			}
			return err
		})
		return name
	}
	for _, way := range []struct {
		what  string
		fetch func() (string, error)
	}{
		{"node", func() (string, error) { return fetch(inside) }},
		{"pod", func() (string, error) { return wget(ns, inside) }},
		{"another machine", func() (string, error) { return fetchFromOutside(t, atNode) }},
	} {
		first := pod(way.fetch)
		for range 12 {
			if got := pod(way.fetch); got != first {
				t.Fatalf("from the %s: first %s, then %s", way.what, first, got)
			}
		}
	}
	// People look at the rules with nft, which must not stumble over them.
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "sticky-10800") {
		t.Errorf("nft list ruleset: %v\n%.2000s", err, out)
	}
	first := pod(func() (string, error) { return fetch(inside) })
	kubectl(t, "-n", ns, "delete", "pod", first)
	second := pod(func() (string, error) { return fetch(inside) })
	for range 12 {
		if got := pod(func() (string, error) { return fetch(inside) }); got != second || got == first {
			t.Fatalf("after %s was deleted: first %s, then %s", first, second, got)
		}
	}
}

func TestHostPort(t *testing.T) {
	t.Parallel()
	pod := func(name string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: docker.io/knarr/e2e-web:v1
    ports: [{containerPort: 8080, hostPort: 18080}, {containerPort: 8080, hostPort: 18080, protocol: UDP}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`, name)
	}
	ns := setUp(t, []string{"pod/first", "pod/client"}, pod("first"), client)
	url := "http://" + machineAddr + ":18080/"
	mustSay(t, "from another machine", "v1 first "+outsideAddr+":", func() (string, error) { return fetchFromOutside(t, url) })
	mustSay(t, "on the node", "v1 first "+machineAddr+":", func() (string, error) { return fetch(url) })
	mustSay(t, "on the node by 127.0.0.1", "v1 first ", func() (string, error) { return fetch("http://127.0.0.1:18080/") })
	mustSay(t, "from a pod", "v1 first ", func() (string, error) { return wget(ns, url) })
	mustSay(t, "UDP", "v1 first ", func() (string, error) { return askUDP(machineAddr + ":18080") })

	apply(t, ns, pod("second"))
	eventually(t, 20*time.Second, "a second pod with the port waits", func() error {
		out := kubectl(t, "-n", ns, "get", "pod", "second", "-o", "jsonpath={.status.conditions[?(@.type=='PodScheduled')]}")
		if !strings.Contains(out, "didn't have free ports for the requested pod ports") {
			return fmt.Errorf("its condition is %s", out)
		}
		return nil
	})
	kubectl(t, "-n", ns, "delete", "pod", "first")
	kubectl(t, "-n", ns, "wait", "pod/second", "--for=condition=Ready", "--timeout=60s")
	mustSay(t, "the port belongs to the second pod now", "v1 second ", func() (string, error) { return fetchFromOutside(t, url) })
	kubectl(t, "-n", ns, "delete", "pod", "second")
	eventually(t, 10*time.Second, "with both pods gone nobody answers", func() error {
		if body, err := fetchFromOutside(t, url); err == nil {
			return fmt.Errorf("the port answers %q", body)
		}
		return nil
	})
}

func TestServiceLeadsToPodOfTheHostNetwork(t *testing.T) {
	t.Parallel()
	ns := setUp(t, []string{"pod/host", "pod/client"}, `
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: host}}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  containers:
  - name: web
    image: docker.io/knarr/e2e-web:v1
    env: [{name: PORT, value: "28080"}, {name: GRPC_PORT, value: "29090"}]
    ports: [{containerPort: 28080, name: http}]
    readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
`, client)
	if ip := podIP(t, ns, "host"); ip != machineAddr {
		t.Errorf("the pod has address %s, want the node's %s", ip, machineAddr)
	}
	kubectl(t, "-n", ns, "expose", "pod", "host", "--port=80", "--target-port=http")
	inside := fmt.Sprintf("http://%s/", service(t, ns, "host").Spec.ClusterIP)
	mustSay(t, "from a pod", "v1 ", func() (string, error) { return wget(ns, inside) })
	mustSay(t, "from the node", "v1 ", func() (string, error) { return fetch(inside) })
}

// Not in parallel: for a moment no Service works. That is what a firewall's reload does.
func TestRulesComeBackWhenSomebodyFlushesThem(t *testing.T) {
	ns := rollOut(t, web, nodePort)
	svc := service(t, ns, "web")
	inside := fmt.Sprintf("http://%s/", svc.Spec.ClusterIP)
	mustSay(t, "the Service", "v1 ", func() (string, error) { return fetch(inside) })
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	began := time.Now()
	mustSay(t, "the Service after nft flush ruleset", "v1 ", func() (string, error) { return fetch(inside) })
	t.Logf("Services work again %v after nft flush ruleset", time.Since(began).Round(time.Millisecond))
}
