package e2e

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/test/history"
)

const (
	// Writes must resume within resumeMedian in half of the rounds and within resumeMost in all: where the tests run beside others on two cores,
	// a server may have to wait for a processor longer than for an election. Where more than crowded processes wait for each processor, twice that
	// must do.
	resumeMedian = 3 * time.Second
	resumeMost   = 15 * time.Second
	crowded      = 4
)

// drill breaks servers of one cluster again and again while clients work and a controller has something to do.
type drill struct {
	*servers
	namespace string
	clients   *clients
	rounds    int
	resumed   map[string][]time.Duration // by what was done
	ready     []time.Duration
}

// TestServersAreLost kills the leader and a follower of three servers, cuts the leader off from the others and from everybody, ten times each.
func TestServersAreLost(t *testing.T) {
	t.Parallel()
	dev := devCluster(t, 4, 3, "--no-agent")
	if dev == nil {
		return
	}
	s := &servers{dev, 3}
	ns := namespace(t)
	d := &drill{servers: s, namespace: ns, clients: startClients(t, ns, s.all(t)...), resumed: map[string][]time.Duration{}}
	for range drillRounds(t) {
		d.round(t, "kill -9 of the leader", d.crashed, d.started)
		d.killFollower(t)
	}
	for i := range drillRounds(t) {
		if i%2 == 0 {
			d.round(t, "leader cut off from the other servers", d.isolate, d.rejoin)
		} else {
			d.round(t, "leader off the network", func(t testing.TB, i int) { d.node(i).cut(t) }, func(t testing.TB, i int) { d.node(i).heal(t) })
		}
	}
	d.clients.check(t)
	d.checkPods(t)
	d.report(t)
}

func (d *drill) crashed(t testing.TB, i int) { end(t, d.node(i).pid(), syscall.SIGKILL) }
func (d *drill) started(t testing.TB, i int) { d.node(i).startOnly(t) }

// round breaks the leader and mends it, with a Deployment that is scaled while there is none.
func (d *drill) round(t testing.TB, what string, harm, mend func(testing.TB, int)) {
	t.Helper()
	leader := d.settled(t)
	d.rounds++
	name := fmt.Sprintf("drill-%d", d.rounds)
	d.must(t, "the Deployment is created", func() error { return d.create(t, name) })
	d.clients.waitMore(t, 50)
	at := d.clients.Recorder.Now()
	harm(t, leader)
	mark := d.clients.Recorder.Mark(fmt.Sprintf("%s (node-%d)", what, leader), at)
	d.resume(t, what, mark)
	d.must(t, "the Deployment is scaled", func() error { return d.scale(t, name) })
	d.mute(t, leader)
	d.must(t, "the Deployment is ready", func() error { return d.complete(t, name) })
	d.ready = append(d.ready, d.clients.Recorder.Now()-at)
	mend(t, leader)
	d.must(t, "the Deployment is deleted", func() error {
		return d.ask(t, http.MethodDelete, deployments(d.namespace)+"/"+name, nil, nil)
	})
	if d.settled(t) == leader {
		t.Logf("node-%d leads again", leader)
	}
}

// resume waits until writes are acknowledged again.
func (d *drill) resume(t testing.TB, what string, mark history.Mark) {
	t.Helper()
	eventually(t, time.Minute, "writes after "+mark.Name, func() error {
		after, ok := d.clients.Recorder.Resumed(mark)
		if !ok {
			return fmt.Errorf("none since %v", d.clients.Recorder.Now()-mark.At)
		}
		d.resumed[what] = append(d.resumed[what], after)
		return nil
	})
}

// mute checks that a server which others have gone on without answers no consistent read; if it has a reason to, the history's check would tell.
func (d *drill) mute(t testing.TB, i int) {
	t.Helper()
	if o := d.clients.Ask(t.Context(), d.at(t, i)); o.Outcome == history.Done {
		t.Errorf("a server that is lost to the others answers a read that must be consistent: %s", o)
	}
}

// killFollower kills one that does not lead: nobody else has to notice.
func (d *drill) killFollower(t testing.TB) {
	t.Helper()
	i := d.settled(t)%d.n + 1
	const what = "kill -9 of a follower"
	at := d.clients.Recorder.Now()
	d.crashed(t, i)
	d.resume(t, what, d.clients.Recorder.Mark(fmt.Sprintf("%s (node-%d)", what, i), at))
	d.started(t, i)
}

// must tries until it succeeds: which servers answer changes.
func (d *drill) must(t testing.TB, what string, do func() error) {
	t.Helper()
	eventually(t, time.Minute, what, do)
}

func deployments(namespace string) string {
	return "/apis/apps/v1/namespaces/" + namespace + "/deployments"
}

// create makes a Deployment of one pod.
func (d *drill) create(t testing.TB, name string) error {
	labels := map[string]any{"drill": name}
	err := d.ask(t, http.MethodPost, deployments(d.namespace), map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"replicas": 1, "selector": map[string]any{"matchLabels": labels}, "template": map[string]any{
			"metadata": map[string]any{"labels": labels},
			"spec": map[string]any{"terminationGracePeriodSeconds": 0, "containers": []any{map[string]any{
				"name": "main", "image": "docker.io/library/busybox:1", "command": []string{"sleep", "86400"}}}},
		}},
	}, nil)
	if err != nil && strings.Contains(err.Error(), "AlreadyExists") { // by an attempt that was not answered
		return nil
	}
	return err
}

// scale makes it two pods.
func (d *drill) scale(t testing.TB, name string) error {
	return d.ask(t, http.MethodPatch, deployments(d.namespace)+"/"+name, map[string]any{"spec": map[string]any{"replicas": 2}}, nil)
}

// complete reports whether the Deployment has exactly its two pods, and both are ready.
func (d *drill) complete(t testing.TB, name string) error {
	var dep appsv1.Deployment
	if err := d.ask(t, http.MethodGet, deployments(d.namespace)+"/"+name, nil, &dep); err != nil {
		return err
	}
	if dep.Status.ReadyReplicas != 2 || dep.Status.ObservedGeneration != dep.Generation {
		return fmt.Errorf("its status at generation %d is %+v", dep.Generation, dep.Status)
	}
	if err := d.hasPods(t, name, 2); err != nil {
		t.Error(err) // not even for a moment
	}
	return nil
}

// hasPods reports whether the Deployment has exactly n pods.
func (d *drill) hasPods(t testing.TB, name string, n int) error {
	var pods corev1.PodList
	if err := d.ask(t, http.MethodGet, "/api/v1/namespaces/"+d.namespace+"/pods?labelSelector=drill%3D"+name, nil, &pods); err != nil {
		return err
	}
	if len(pods.Items) != n {
		return fmt.Errorf("Deployment %s of %d has %d pods", name, n, len(pods.Items))
	}
	return nil
}

// checkPods looks at what controllers and the scheduler said they did: each pod once. Two leaders at work would have made a pod too many and taken it
// back, or bound one twice.
func (d *drill) checkPods(t testing.TB) {
	t.Helper()
	var events corev1.EventList
	d.must(t, "the events", func() error {
		return d.ask(t, http.MethodGet, "/api/v1/namespaces/"+d.namespace+"/events", nil, &events)
	})
	scheduled, created := map[string]int32{}, map[string]int32{}
	for _, e := range events.Items {
		count := max(e.Count, 1)
		switch e.Reason {
		case "SuccessfulDelete":
			t.Errorf("a pod too many was made and deleted: %s: %s", e.InvolvedObject.Name, e.Message)
		case "SuccessfulCreate":
			created[e.InvolvedObject.Name] += count
		case "Scheduled":
			scheduled[string(e.InvolvedObject.UID)] += count
		}
	}
	for rs, n := range created {
		if n > 2 {
			t.Errorf("ReplicaSet %s of 2 made %d pods", rs, n)
		}
	}
	for uid, n := range scheduled {
		if n > 1 {
			t.Errorf("pod %s was scheduled %d times", uid, n)
		}
	}
	if len(created) < d.rounds || len(scheduled) < d.rounds {
		t.Errorf("of %d rounds only %d creations and %d bindings are told of", d.rounds, len(created), len(scheduled))
	}
}

// report tells how long everything took and holds it against what is promised.
func (d *drill) report(t testing.TB) {
	t.Helper()
	patience := time.Duration(1)
	if isCrowded(t) {
		patience = 2
	}
	for what, took := range d.resumed {
		slices.Sort(took)
		median, most := took[len(took)/2], took[len(took)-1]
		t.Logf("%s, %d times: writes resumed after %v (median), %v (at most)", what, len(took), median.Round(time.Millisecond), most.Round(time.Millisecond))
		median, most = median/patience, most/patience
		if median > resumeMedian || most > resumeMost {
			t.Errorf("%s: writes resumed after %v, want %v in half of the cases and %v in all, on a machine that is not crowded (%v)", what, took, resumeMedian, resumeMost, patience == 1)
		}
	}
	if len(d.ready) == 0 {
		return
	}
	slices.Sort(d.ready)
	t.Logf("a Deployment made before and scaled afterwards was complete after %v (median), %v (at most)",
		d.ready[len(d.ready)/2].Round(time.Millisecond), d.ready[len(d.ready)-1].Round(time.Millisecond))
}

// isCrowded reports whether many processes wait for each processor, by the load of the last five minutes.
func isCrowded(t testing.TB) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	var one, five float64
	if _, err := fmt.Sscan(string(b), &one, &five); err != nil {
		t.Fatalf("/proc/loadavg: %v", err)
	}
	t.Logf("the load of the last five minutes is %.1f on %d processors", five, runtime.NumCPU())
	return five > crowded*float64(runtime.NumCPU())
}
