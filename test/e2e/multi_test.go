package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
)

// dev is a cluster of several nodes on this machine, made by knarr dev up for one test alone. All that works on the shared cluster -
// kubectl, apply, namespace, eventually - works on it in such a test.
//
//	func TestSomethingOfSeveralNodes(t *testing.T) {
//		t.Parallel()
//		d := devCluster(t, 3, 1) // three nodes, one of them a server; flags of knarr server may follow
//		if d == nil {
//			return // the test has run in a network namespace of its own
//		}
//		d.node(3).kill(t)  // power failure; start starts it again and waits until it is Ready
//		d.node(2).cut(t)   // off the network; heal puts it back
//		d.node(2).crash(t) // kill -9 of the knarr process alone; stop is SIGTERM
//		...
//	}
//
// Afterwards the cluster is taken down, with pods in it, and the machine is compared with how it was.
type dev struct {
	nodes int
	// podless clusters have servers alone, which run no pods.
	podless bool
}

// devNode is one node of it.
type devNode struct {
	name string
	dir  string
}

// devNames are archives that nodes get, of those that TestMain built; the tests' own come before the examples'.
var devNames = []string{"busybox", "web-v1", "web-v2"}

// devCluster starts a cluster, or runs the calling test once more where it can have one, and returns nil.
func devCluster(t *testing.T, nodes, servers int, flags ...string) *dev {
	t.Helper()
	if os.Getenv(envStage) != stageDev {
		runAlone(t, stageDev, "10m")
		return nil
	}
	d := &dev{nodes: nodes, podless: nodes == servers && slices.Contains(flags, "--no-agent")}
	t.Cleanup(func() {
		if t.Failed() {
			d.explain(t)
		}
		down := []string{"dev", "down", "--delete-data"}
		var err error
		if d.podless {
			err = removeAll(d.marks(nil), down...)
		} else {
			err = takeDown(d.marks, down...)
		}
		if err != nil {
			t.Error(err)
		}
	})
	d.up(t, append([]string{"--nodes", strconv.Itoa(nodes), "--servers", strconv.Itoa(servers), "--upstream-dns", outsideAddr, "--wait", "2m"}, flags...)...)
	if d.podless {
		return d
	}
	d.importImages(t)
	return d
}

// importImages gives every node the images of devNames.
func (d *dev) importImages(t testing.TB) {
	t.Helper()
	for _, name := range devNames {
		found, err := filepath.Glob(filepath.Join(cluster.images, "*-"+name+".tar"))
		if err != nil || len(found) == 0 {
			t.Fatalf("image %s in %s: %v %v", name, cluster.images, found, err)
		}
		d.knarr(t, "dev", "image", "import", found[0])
	}
}

// up runs knarr dev up; flags of knarr server are told apart from its own by its list.
func (d *dev) up(t testing.TB, flags ...string) string {
	t.Helper()
	own := []string{"--nodes", "--servers", "--upstream-dns", "--wait", "--overlay", "--image"}
	args, rest := []string{"dev", "up", "--data-dir", cluster.dataDir}, []string{"--"}
	for i := 0; i < len(flags); i++ {
		if name, _, whole := strings.Cut(flags[i], "="); slices.Contains(own, name) {
			args = append(args, flags[i])
			if !whole && i+1 < len(flags) {
				i++
				args = append(args, flags[i])
			}
			continue
		}
		rest = append(rest, flags[i])
	}
	began := time.Now()
	out, err := exec.Command(cluster.bin, append(args, rest...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("knarr dev up: %v\n%s", err, out)
	}
	t.Logf("knarr dev up took %v", time.Since(began).Round(10*time.Millisecond))
	return string(out)
}

// knarr runs a command on the cluster's directory.
func (d *dev) knarr(t testing.TB, args ...string) string {
	t.Helper()
	out, err := knarr(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// marks are what the names of everything that the nodes made contain.
func (d *dev) marks(machineState) []string {
	out := []string{cluster.dataDir, "kd" + instance(cluster.dataDir)}
	for i := range d.nodes {
		out = append(out, "knarr-"+instance(d.node(i+1).dir))
	}
	return out
}

// instance is how Knarr marks what belongs to a data directory (cluster.Instance); takeDown notices if that is so no more.
func instance(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:4])
}

// explain logs what may tell why a test failed.
func (d *dev) explain(t testing.TB) {
	ps, _ := knarr("dev", "ps")
	nodes, _ := run("", "get", "nodes,pods,events", "-A", "-o", "wide")
	t.Logf("%s\n%s", ps, nodes)
	for i := range d.nodes {
		log, _ := exec.Command("tail", "-n", "30", d.node(i+1).dir+"/knarr.log").CombinedOutput()
		t.Logf("the end of the log of %s:\n%s", d.node(i+1).name, log)
	}
}

// node returns the node of that number, from 1; servers come first.
func (d *dev) node(i int) devNode {
	name := "node-" + strconv.Itoa(i)
	return devNode{name: name, dir: filepath.Join(cluster.dataDir, name)}
}

func (n devNode) do(t testing.TB, verb string, flags ...string) {
	t.Helper()
	if _, err := knarr(append([]string{"dev", verb, n.name}, flags...)...); err != nil {
		t.Fatal(err)
	}
}

// kill is a power failure: knarr, runtime and containers end without a word.
func (n devNode) kill(t testing.TB) { t.Helper(); n.do(t, "kill") }

// start starts the node and waits until it is Ready.
func (n devNode) start(t testing.TB) { t.Helper(); n.do(t, "start") }

// startOnly starts the node's process and does not wait.
func (n devNode) startOnly(t testing.TB) { t.Helper(); n.do(t, "start", "--wait=0") }

// stop ends the knarr process in good order; containers run on.
func (n devNode) stop(t testing.TB) { t.Helper(); n.do(t, "stop") }

// crash kills the knarr process; containers run on.
func (n devNode) crash(t testing.TB) { t.Helper(); n.do(t, "stop", "--kill") }

// cut takes the node off the network.
func (n devNode) cut(t testing.TB) { t.Helper(); n.do(t, "cut") }

// heal puts it back.
func (n devNode) heal(t testing.TB) { t.Helper(); n.do(t, "heal") }

// kubeconfig is the administrator's, of a server.
func (n devNode) kubeconfig() string { return filepath.Join(n.dir, "kubeconfig") }

// pid is the node's knarr process, or 0.
func (n devNode) pid() int {
	b, err := os.ReadFile(n.dir + "/knarr.pid")
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return pid
}

// addr is the node's address.
func (n devNode) addr(t testing.TB) string {
	t.Helper()
	return kubectl(t, "get", "node", n.name, "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
}

// inside runs f in the node's network namespace; sockets must be opened by f itself, not by goroutines it starts.
func (n devNode) inside(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(filepath.Join(cluster.dataDir, "netns", n.name))
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("entering the network of %s: %v", n.name, err)
	}
}

// dial connects from the node's network namespace.
func (n devNode) dial(t testing.TB, network, addr string) (conn net.Conn, err error) {
	n.inside(t, func() { conn, err = net.DialTimeout(network, addr, 3*time.Second) })
	return conn, err
}

// dialer connects from the node's network namespace, in any goroutine.
func (n devNode) dialer() func(ctx context.Context, network, addr string) (net.Conn, error) {
	path := filepath.Join(cluster.dataDir, "netns", n.name)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		type result struct {
			conn net.Conn
			err  error
		}
		done := make(chan result)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			ns, err := netns.GetFromPath(path)
			if err == nil {
				defer ns.Close()
				err = netns.Set(ns)
			}
			var conn net.Conn
			if err == nil {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			}
			done <- result{conn, err}
		}()
		r := <-done
		return r.conn, r.err
	}
}

// fetch asks for a URL from the node itself.
func (n devNode) fetch(t testing.TB, url string) (string, error) {
	t.Helper()
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	if !strings.Contains(host, ":") {
		host += ":80"
	}
	conn, err := n.dial(t, "tcp4", host)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		Dial: func(string, string) (net.Conn, error) { return conn, nil }}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, b)
	}
	return string(b), err
}

// readyStatus returns the status of the node's condition Ready: True, False or Unknown.
func (n devNode) readyStatus() (string, error) {
	return run("", "get", "node", n.name, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
}

// awaitStatus waits for the node's condition Ready to have one of the statuses, and returns how long that took.
func (n devNode) awaitStatus(t testing.TB, timeout time.Duration, want ...string) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, timeout, n.name+" is "+strings.Join(want, " or "), func() error {
		got, err := n.readyStatus()
		if err == nil && !slices.Contains(want, got) {
			err = fmt.Errorf("Ready is %s", got)
		}
		return err
	})
	return time.Since(began)
}

// podsOn returns the names of a namespace's pods on a node, but for those that are being deleted.
func podsOn(t testing.TB, namespace, node string) (names []string) {
	t.Helper()
	var pods corev1.PodList
	get(t, &pods, "-n", namespace, "get", "pods")
	for _, p := range pods.Items {
		if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
			names = append(names, p.Name)
		}
	}
	return names
}
