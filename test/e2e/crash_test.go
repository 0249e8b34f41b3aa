package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// containers returns the pods' containers of a namespace with how often they were started: "web-abc containerd://123 0".
func containers(t testing.TB, namespace string) []string {
	t.Helper()
	var pods corev1.PodList
	get(t, &pods, "-n", namespace, "get", "pods")
	var out []string
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			out = append(out, fmt.Sprintf("%s %s %d", p.Name, c.ContainerID, c.RestartCount))
		}
	}
	slices.Sort(out)
	return out
}

// untouched fails if not exactly the containers of before run, as often started.
func untouched(t testing.TB, namespace string, before []string) {
	t.Helper()
	if after := containers(t, namespace); !slices.Equal(before, after) {
		t.Errorf("containers were\n  %s\nand are\n  %s", strings.Join(before, "\n  "), strings.Join(after, "\n  "))
	}
}

// processOf returns the process of the cluster whose arguments contain all parts, or 0.
func processOf(parts ...string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		line := string(bytes.ReplaceAll(b, []byte{0}, []byte(" ")))
		if err != nil || !strings.Contains(line, cluster.dataDir) || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			return pid
		}
	}
	return 0
}

// processesIn counts the processes with an executable of that name that run in the cluster's containers.
func processesIn(t testing.TB, name string) (n int) {
	t.Helper()
	now, err := observeMachine()
	if err != nil {
		t.Fatal(err)
	}
	marks := now.marks()
	for line := range now {
		if f := strings.Fields(line); f[0] == "process" && f[2] == name && ours(line, marks[1:]) {
			n++
		}
	}
	return n
}

// end ends a process with a signal and waits for it.
func end(t testing.TB, pid int, signal syscall.Signal) {
	t.Helper()
	if pid == 0 {
		t.Fatal("the process to end does not run")
	}
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, fmt.Sprintf("the end of process %d", pid), func() error {
		// It stays a zombie if nobody waits for it; it does not run any more then.
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(b), ") Z ") {
			return fmt.Errorf("it still runs: %s", b)
		}
		return nil
	})
}

// api is a client for the cluster's API without any limit or retry.
func api(t testing.TB) (*http.Client, string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(cluster.dataDir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	c := httpClient(t, config)
	c.Timeout = 5 * time.Second
	return c, config.Host
}

func httpClient(t testing.TB, config *rest.Config) *http.Client {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// readyz asks the server whether it is ready.
func readyz(c *http.Client, host string) error {
	resp, err := c.Get(host + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/readyz: %s", resp.Status)
	}
	return nil
}

// writers create and update ConfigMaps without a pause and remember what the server said was done.
type writers struct {
	client *http.Client
	url    string
	wg     sync.WaitGroup
	cancel context.CancelFunc
	count  atomic.Int64 // acknowledged writes

	mu    sync.Mutex
	acked map[string]int // name -> newest value acknowledged
	sent  map[string]int // name -> newest value sent
}

func startWriters(t testing.TB, namespace string, n int) *writers {
	c, host := api(t)
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{client: c, url: host + "/api/v1/namespaces/" + namespace + "/configmaps", cancel: cancel, acked: map[string]int{}, sent: map[string]int{}}
	for i := range n {
		w.wg.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				name := fmt.Sprintf("w%d-%d", i, round)
				for value := range 4 {
					method, url := http.MethodPut, w.url+"/"+name
					if value == 0 {
						method, url = http.MethodPost, w.url
					}
					w.write(ctx, method, url, name, value)
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); w.wg.Wait() })
	return w
}

func (w *writers) write(ctx context.Context, method, url, name string, value int) {
	body, _ := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name},
		"data": map[string]string{"value": strconv.Itoa(value)}})
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	w.mu.Lock()
	w.sent[name] = value
	w.mu.Unlock()
	resp, err := w.client.Do(req)
	if err != nil {
		return // not acknowledged: it may have been done or not
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil && resp.StatusCode < 300 {
		w.count.Add(1)
		w.mu.Lock()
		w.acked[name] = value
		w.mu.Unlock()
	}
}

// waitMore waits until n more writes were acknowledged.
func (w *writers) waitMore(t testing.TB, n int64) {
	t.Helper()
	want := w.count.Load() + n
	eventually(t, 30*time.Second, fmt.Sprintf("%d more writes", n), func() error {
		if got := w.count.Load(); got < want {
			return fmt.Errorf("%d to go", want-got)
		}
		return nil
	})
}

// check stops the writers; everything that was acknowledged must be there.
func (w *writers) check(t testing.TB, namespace string) {
	t.Helper()
	w.cancel()
	w.wg.Wait()
	var list corev1.ConfigMapList
	get(t, &list, "-n", namespace, "get", "configmaps")
	have := map[string]int{}
	for _, c := range list.Items {
		if v, err := strconv.Atoi(c.Data["value"]); err == nil {
			have[c.Name] = v
		}
	}
	for name, acked := range w.acked {
		if v, ok := have[name]; !ok || v < acked || v > w.sent[name] {
			t.Errorf("ConfigMap %s: %d was acknowledged and %d sent last, but it has %d (exists: %v)", name, acked, w.sent[name], v, ok)
		}
	}
	t.Logf("%d writes acknowledged, %d objects there", w.count.Load(), len(have))
}

func TestKilledServerLosesNothingAndStopsNothing(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := rollOut(t, strings.Replace(web, "replicas: 2", "replicas: 3", 1), nodePort)
	before := containers(t, ns)
	requests := load(t, serviceURLs(t, ns, "web"))
	w := startWriters(t, ns, 20)
	c, host := api(t)
	ctx := t.Context()
	for range 3 {
		w.waitMore(t, 300)
		end(t, serverPID(), syscall.SIGKILL)
		began := time.Now()
		up := make(chan error, 1)
		go func() { up <- startCluster() }()
		answered := make(chan time.Duration, 1)
		go func() {
			for ctx.Err() == nil {
				if readyz(c, host) == nil {
					answered <- time.Since(began)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		if err := <-up; err != nil {
			t.Fatal(err)
		}
		ready := <-answered
		t.Logf("after kill -9 the API was ready again %v after its start, the node after %v", ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if ready > 2*time.Second {
			t.Errorf("the API took %v to be ready again, want at most 2s", ready)
		}
	}
	w.waitMore(t, 300)
	w.check(t, ns)

	// What was running has not noticed.
	kubectl(t, "-n", ns, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=30s")
	untouched(t, ns, before)
	requests.stop(t)

	// And the cluster goes on working.
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=4")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
}

func TestRestartsAndDeathsOfTheRuntime(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := rollOut(t, web, nodePort)
	before := containers(t, ns)
	urls := serviceURLs(t, ns, "web")

	t.Run("a killed runtime is replaced under running pods", func(t *testing.T) {
		requests := load(t, urls)
		old := processOf("containerd", "--config")
		end(t, old, syscall.SIGKILL)
		eventually(t, 20*time.Second, "another runtime", func() error {
			if pid := processOf("containerd", "--config"); pid == 0 || pid == old {
				return fmt.Errorf("it has process %d", pid)
			}
			return nil
		})
		apply(t, ns, strings.Replace(client, "name: client", "name: later", 1))
		kubectl(t, "-n", ns, "wait", "pod/later", "--for=condition=Ready", "--timeout=60s")
		kubectl(t, "-n", ns, "delete", "pod", "later")
		untouched(t, ns, before)
		if out := kubectl(t, "-n", ns, "exec", "client", "--", "echo", "hello"); strings.TrimSpace(out) != "hello" {
			t.Errorf("exec after the runtime's death says %q", out)
		}
		requests.stop(t)
	})

	t.Run("a restarted server takes over what runs", func(t *testing.T) {
		requests := load(t, urls)
		end(t, serverPID(), syscall.SIGTERM)
		if err := startCluster(); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
		untouched(t, ns, before)
		requests.stop(t)
	})

	t.Run("a pod that ended while nobody looked is started again", func(t *testing.T) {
		server := serverPID()
		end(t, server, syscall.SIGKILL)
		pid := processOf("containerd-shim") // the shim stays for as long as anything of its pod runs
		if pid == 0 {
			t.Fatal("no shim runs")
		}
		end(t, pid, syscall.SIGKILL)
		if err := startCluster(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "the one pod has new containers", func() error {
			after := containers(t, ns)
			if n := len(before) - len(slices.DeleteFunc(slices.Clone(before), func(line string) bool { return slices.Contains(after, line) })); n != len(before)-1 {
				return fmt.Errorf("of %d containers %d are as before:\n  %s", len(before), n, strings.Join(after, "\n  "))
			}
			return nil
		})
		kubectl(t, "-n", ns, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=30s")
		kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=30s")
		// What ran in it without its shim is gone too.
		if n := processesIn(t, "/web") + processesIn(t, "httpd"); n != len(before) {
			t.Errorf("%d processes of containers run, want %d", n, len(before))
		}
	})

	t.Run("down and up again, as after a reboot", func(t *testing.T) {
		kubectl(t, "-n", ns, "create", "configmap", "kept", "--from-literal=k=v")
		began := time.Now()
		if _, err := knarr("down"); err != nil {
			t.Fatal(err)
		}
		t.Logf("knarr down took %v", time.Since(began).Round(time.Millisecond))
		now, err := observeMachine()
		if err != nil {
			t.Fatal(err)
		}
		if left := cluster.base.differences(now, []string{cluster.dataDir}); len(left) > 0 {
			t.Errorf("left after knarr down:\n  %s", strings.Join(left, "\n  "))
		}
		began = time.Now()
		if err := startCluster(); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
		kubectl(t, "-n", ns, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
		t.Logf("all pods are Ready again %v after knarr up", time.Since(began).Round(time.Millisecond))
		if v := kubectl(t, "-n", ns, "get", "configmap", "kept", "-o", "jsonpath={.data.k}"); v != "v" {
			t.Errorf("the ConfigMap has %q", v)
		}
		for _, url := range urls {
			mustSay(t, url, "v1 ", func() (string, error) { return fetch(url) })
		}
	})
}
