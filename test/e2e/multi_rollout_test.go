package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A rolling update of 30 pods over three nodes, while requests come in through the ClusterIP on a node and through the NodePorts of all
// nodes, and while an agent is restarted: first in good order, then, on the way back, with kill -9.
//
// The pods wait for a few seconds before they stop (preStop), as Kubernetes advises: other nodes hear of their end by way of the API,
// and one whose agent is away hears of it when that is back.
func TestRollingUpdateOverThreeNodesWhileAnAgentRestarts(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 3, 1)
	if d == nil {
		return
	}
	patient := strings.Replace(spreadWeb(30), "        ports: [{containerPort: 8080, name: http}]\n",
		"        ports: [{containerPort: 8080, name: http}]\n        lifecycle: {preStop: {sleep: {seconds: 20}}}\n", 1)
	patient = strings.Replace(patient, "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 35", 1)
	ns := setUp(t, nil, patient, nodePort)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=120s")
	svc := service(t, ns, "web")
	clusterIP, port := fmt.Sprintf("http://%s/", svc.Spec.ClusterIP), svc.Spec.Ports[0].NodePort
	var nodePorts []string
	for i := 1; i <= 3; i++ {
		nodePorts = append(nodePorts, fmt.Sprintf("http://%s:%d/", d.node(i).addr(t), port))
	}
	for _, url := range nodePorts {
		eventually(t, 10*time.Second, url+" answers", func() error { _, err := fetch(url); return err })
	}
	loads := []*loader{load(t, nodePorts), loadBy(t, d.node(1).dialer(), []string{clusterIP}), loadBy(t, d.node(2).dialer(), []string{clusterIP})}

	n := d.node(2)
	for _, step := range []struct {
		version string
		end     func(testing.TB)
	}{{"v2", n.stop}, {"v1", n.crash}} {
		kubectl(t, "-n", ns, "set", "image", "deploy/web", "web=docker.io/knarr/e2e-web:"+step.version)
		eventually(t, 60*time.Second, "the rollout is on its way", func() error {
			out, err := run("", "-n", ns, "get", "deploy", "web", "-o", "jsonpath={.status.updatedReplicas}")
			if err == nil && (len(out) < 2 || out == "30") {
				err = fmt.Errorf("%s pods are updated", out)
			}
			return err
		})
		began := time.Now()
		step.end(t)
		n.start(t)
		t.Logf("the agent was away or not Ready for %v", time.Since(began).Round(time.Millisecond))
		kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=180s")
		t.Logf("the rollout took %v", time.Since(began).Round(time.Millisecond))
		for _, l := range loads {
			l.onlyFromWithin(t, 60*time.Second, step.version) // old pods answer on old connections until their hook is over
		}
	}
	for _, l := range loads {
		l.stop(t)
	}
}

// The server is away for 25 seconds; nothing that runs cares, and what it missed is made good.
func TestServerIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 3, 1)
	if d == nil {
		return
	}
	ns := setUp(t, nil, spreadWeb(6), nodePort)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	svc := service(t, ns, "web")
	clusterIP := fmt.Sprintf("http://%s/", svc.Spec.ClusterIP)
	before := containers(t, ns)
	var victim corev1.Pod
	get(t, &victim, "-n", ns, "get", "pod", podsOn(t, ns, "node-3")[0])
	other := podIP(t, ns, podsOn(t, ns, "node-2")[0])

	d.node(1).crash(t)
	began := time.Now()
	kill(t, &victim, "web", syscall.SIGKILL)
	took, err := within(15*time.Second, func() error {
		_, err := d.node(3).fetch(t, "http://"+victim.Status.PodIP+":8080/")
		return err
	})
	if err != nil {
		t.Errorf("a container that was killed while the server is away does not come back: %v", err)
	}
	t.Logf("without a server, a killed container answered again after %v", took.Round(time.Millisecond))
	// Services, and pods of other nodes, are reached all the time.
	for time.Since(began) < 25*time.Second {
		for _, url := range []string{clusterIP, "http://" + other + ":8080/"} {
			if _, err := d.node(3).fetch(t, url); err != nil {
				t.Errorf("%v after the server's end: %v", time.Since(began), err)
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	d.node(1).start(t)

	// One container was started again, and nobody was evicted.
	eventually(t, 30*time.Second, "one restart is told", func() error {
		after, restarts := containers(t, ns), 0
		for i, line := range after {
			if i >= len(before) || strings.Fields(line)[0] != strings.Fields(before[i])[0] {
				return fmt.Errorf("the pods were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			if strings.HasPrefix(line, victim.Name+" ") && strings.HasSuffix(line, " 1") {
				restarts++
			} else if line != before[i] {
				return fmt.Errorf("the container of %s is another one", line)
			}
		}
		if restarts != 1 {
			return fmt.Errorf("%d containers were restarted", restarts)
		}
		return nil
	})
	for i := 1; i <= 3; i++ {
		d.node(i).awaitStatus(t, 30*time.Second, "True")
	}
	kubectl(t, "-n", ns, "scale", "deploy/web", "--replicas=9")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	if out := kubectl(t, "-n", ns, "get", "pods", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='DisruptionTarget')].reason}"); strings.TrimSpace(out) != "" {
		t.Errorf("pods were disrupted: %s", out)
	}
}
