package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// busyPod is a pod that is busy for a fifth of a processor at most, and holds some memory.
const busyPod = `
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: docker.io/library/busybox:1
    command: [sh, -c, "while :; do :; done"]
    resources: {requests: {cpu: 10m}, limits: {cpu: 200m, memory: 64Mi}}
`

// usage reads what a pod uses, from metrics.k8s.io.
func usage(t testing.TB, namespace, pod string) (cpu, memory int64, err error) {
	t.Helper()
	out, err := run("", "get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/"+namespace+"/pods/"+pod)
	if err != nil {
		return 0, 0, err
	}
	var m metrics.PodMetrics
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return 0, 0, err
	}
	if len(m.Containers) != 1 || m.Window.Duration <= 0 || time.Since(m.Timestamp.Time) > time.Minute {
		return 0, 0, fmt.Errorf("usage of %s: %s", pod, out)
	}
	return m.Containers[0].Usage.Cpu().MilliValue(), m.Containers[0].Usage.Memory().Value(), nil
}

func TestWhatIsUsed(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, busyPod)
	p := awaitPod(t, ns, "busy", 60*time.Second, "Ready", ready)
	eventually(t, 60*time.Second, "the busy pod is seen to be busy, within its limit", func() error {
		cpu, memory, err := usage(t, ns, "busy")
		// On a busy machine it may get less than its limit; nearly nothing would be wrong, and so would much more.
		if err == nil && (cpu < 20 || cpu > 260 || memory < 10<<10 || memory > 64<<20) {
			err = fmt.Errorf("%dm of a processor and %d bytes", cpu, memory)
		}
		return err
	})
	node := p.Spec.NodeName
	proxy := "/api/v1/nodes/" + node + "/proxy"
	busy := `namespace="` + ns + `",pod="busy"}`
	session(t, ns, []step{
		{"", "top pod busy --containers", "busy c"},
		{"", "top node", node},
		{"", "get pods.metrics.k8s.io", "NAME CPU MEMORY WINDOW busy"},
		{"", "get --raw " + proxy + "/healthz", "ok"},
		{"", "get --raw " + proxy + "/metrics/resource", `container_cpu_usage_seconds_total{container="c",namespace="` + ns + `",pod="busy"}`},
		{"", "get --raw " + proxy + "/metrics/cadvisor", `container_cpu_cfs_throttled_seconds_total{container="c" … image="docker.io/library/busybox:1" … ` + busy +
			` … container_network_receive_packets_total{container="" … interface="eth0" … ` + busy + ` … container_spec_memory_limit_bytes{ … ` + busy + ` 67108864`},
		{"", "get --raw " + proxy + "/metrics", "kubelet_running_pods"},
		{"", "get --raw " + proxy + "/pods", `"name": "busy"`},
		{"", "get --raw " + proxy + "/configz", `"maxPods"`},
		{"", "!get --raw /api/v1/nodes/" + node + ":22/proxy/", "no other port"},
		{"", "get --raw /metrics", "apiserver_request_total"},
	})
	out := kubectl(t, "get", "--raw", proxy+"/stats/summary")
	for _, want := range []string{`"usageNanoCores"`, `"rootfs"`, `"logs"`, `"ephemeral-storage"`, `"imageFs"`, `"process_count"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in the summary of %s", want, node)
		}
	}
	t.Run("for those who may", func(t *testing.T) {
		session(t, ns, []step{
			{"", "create serviceaccount scraper", "created"},
			{"", "!top node --as=system:serviceaccount:" + ns + ":scraper", "forbidden"},
			{"", "!get --raw " + proxy + "/metrics --as=system:serviceaccount:" + ns + ":scraper", "forbidden"},
			{"", "create clusterrole scraper-" + ns + " --verb=get --resource=nodes/metrics", "created"},
			{"", "create clusterrolebinding scraper-" + ns + " --clusterrole=scraper-" + ns + " --serviceaccount=" + ns + ":scraper", "created"},
			{"", "get --raw " + proxy + "/metrics --as=system:serviceaccount:" + ns + ":scraper", "kubelet_running_pods"},
			{"", "!get --raw " + proxy + "/pods --as=system:serviceaccount:" + ns + ":scraper", "forbidden"},
			{"", "delete clusterrole,clusterrolebinding scraper-" + ns, "deleted"},
		})
	})
}

// The figures of a machine that joined come over the connection that its agent made.
func TestWhatIsUsedOnAJoinedMachine(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 2, 1)
	if d == nil {
		return
	}
	joined := d.node(2).name
	ns := namespace(t)
	apply(t, ns, strings.Replace(busyPod, "spec:", "spec:\n  nodeName: "+joined, 1))
	awaitPod(t, ns, "busy", 120*time.Second, "Ready", ready)
	eventually(t, 90*time.Second, "the busy pod is seen to be busy", func() error {
		cpu, _, err := usage(t, ns, "busy")
		if err == nil && cpu < 20 {
			err = fmt.Errorf("%dm of a processor", cpu)
		}
		return err
	})
	session(t, ns, []step{
		{"", "top node " + joined, joined},
		{"", "get --raw /api/v1/nodes/" + joined + "/proxy/stats/summary", `"nodeName": "` + joined + `"`},
		{"", "get --raw /api/v1/nodes/" + joined + ":10250/proxy/metrics/resource", "node_cpu_usage_seconds_total"},
	})
}

func TestPodsAreResizedInPlace(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, probed("p", `
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
`))
	p := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
	// check waits until the control groups of container and pod have what is asked for, and the status tells so.
	check := func(cpu, memory string, restarts int32) {
		t.Helper()
		eventually(t, 60*time.Second, "the pod has "+cpu+" and "+memory, func() error {
			get(t, p, "-n", ns, "get", "pod", "p")
			st := p.Status.ContainerStatuses[0]
			for _, c := range p.Status.Conditions {
				if strings.HasPrefix(string(c.Type), "PodResize") {
					return fmt.Errorf("%s: %s %s", c.Type, c.Reason, c.Message)
				}
			}
			if st.State.Running == nil || st.RestartCount != restarts || st.Resources.Limits.Cpu().String() != cpu || st.Resources.Limits.Memory().String() != memory {
				return fmt.Errorf("%d restarts, resources %+v", st.RestartCount, st.Resources)
			}
			quota, mem := resource.MustParse(cpu), resource.MustParse(memory)
			for _, f := range []struct{ v1, v2, want string }{
				{"cpu/cpu.cfs_quota_us", "cpu.max", fmt.Sprint(quota.MilliValue() * 100)},
				{"memory/memory.limit_in_bytes", "memory.max", fmt.Sprint(mem.Value())},
			} {
				container, pod := cgroupFile(t, p, f.v1, f.v2)
				if !strings.HasPrefix(container, f.want) || !strings.HasPrefix(pod, f.want) {
					return fmt.Errorf("%s: container %s, pod %s, want %s", f.v1, strings.TrimSpace(container), strings.TrimSpace(pod), f.want)
				}
			}
			return nil
		})
	}
	resize := func(resources, want string) {
		t.Helper()
		session(t, ns, []step{{"", `patch pod p --subresource resize -p '{"spec":{"containers":[{"name":"c","resources":` + resources + `}]}}'`, want}})
	}
	check("200m", "64Mi", 0)
	resize(`{"requests":{"cpu":"150m"},"limits":{"cpu":"300m"}}`, "patched")
	check("300m", "64Mi", 0)
	resize(`{"requests":{"cpu":"50m"},"limits":{"cpu":"100m"}}`, "patched")
	check("100m", "64Mi", 0)
	resize(`{"requests":{"memory":"48Mi"},"limits":{"memory":"96Mi"}}`, "patched")
	check("100m", "96Mi", 1)
	resize(`{"requests":{"cpu":"500"},"limits":{"cpu":"500"}}`, "patched")
	eventually(t, 30*time.Second, "the resize is told to be infeasible", func() error {
		get(t, p, "-n", ns, "get", "pod", "p")
		for _, c := range p.Status.Conditions {
			if c.Type == "PodResizePending" && c.Reason == "Infeasible" && strings.Contains(c.Message, "Node didn't have enough capacity: cpu, requested: 500000") {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", p.Status.Conditions)
	})
	resize(`{"requests":{"cpu":"50m"},"limits":{"cpu":"100m"}}`, "patched")
	check("100m", "96Mi", 1)
}
