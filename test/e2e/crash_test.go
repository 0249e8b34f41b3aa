package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
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
	config := adminConfig(t, filepath.Join(cluster.dataDir, "kubeconfig"))
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

func TestKilledServerLosesNothingAndStopsNothing(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := rollOut(t, strings.Replace(web, "replicas: 2", "replicas: 3", 1), nodePort)
	before := containers(t, ns)
	requests := load(t, serviceURLs(t, ns, "web"))
	w := startClients(t, ns, theServer(t))
	c, host := api(t)
	ctx := t.Context()
	for range 3 {
		w.waitMore(t, 300)
		at := w.Recorder.Now()
		end(t, serverPID(), syscall.SIGKILL)
		w.Recorder.Mark("kill -9", at)
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
	w.check(t)

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
