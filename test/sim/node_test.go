package sim

import (
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/node/hollow"
)

func TestSilentNodeLosesItsPods(t *testing.T) {
	const replicas = 30
	simulate(t, 0, func(w *world) {
		w.nodes(0, 2)
		silence := w.nodes(2, 1)
		w.deploy("web", replicas)
		w.until("all pods to be ready", time.Minute, w.settled("web", "docker.io/library/app:1", replicas))
		lost := 0
		for _, p := range w.pods("web") {
			if p.Spec.NodeName == hollow.Name(2) {
				lost++
			}
		}
		if lost == 0 {
			t.Fatal("no pod was placed on the third node")
		}
		elsewhere := func() (ready, all int) {
			for _, p := range w.pods("web") {
				if p.Spec.NodeName != hollow.Name(2) {
					all++
					if podReady(p) {
						ready++
					}
				}
			}
			return ready, all
		}
		silence()
		// Pods tolerate a node that cannot be reached for 300 s (DefaultTolerationSeconds); it is found out after 50 s.
		w.pass(300 * time.Second)
		if _, all := elsewhere(); all != replicas-lost {
			t.Fatalf("%d pods are elsewhere after 300 s; the %d on the silent node should not have been replaced yet", all, lost)
		}
		took := w.until("all pods to be ready elsewhere", 2*time.Minute, func() (bool, any) {
			ready, _ := elsewhere()
			return ready == replicas, ready
		})
		t.Logf("the pods of the silent node were replaced %v after it fell silent", 300*time.Second+took)
		// The node comes back as after a reboot, without containers: the pods that were replaced end.
		w.nodes(2, 1)
		w.until("the old pods to be gone", 2*time.Minute, w.settled("web", "docker.io/library/app:1", replicas))
	})
}

func TestIdleClusterWritesLittle(t *testing.T) {
	const nodes, minutes = 100, 10
	simulate(t, 0, func(w *world) {
		w.nodes(0, nodes)
		w.deploy("web", 100)
		w.until("the pods to be ready", time.Minute, w.settled("web", "docker.io/library/app:1", 100))
		w.pass(time.Minute) // what follows from the start
		w.backend.counted()
		began := time.Now()
		w.pass(minutes * time.Minute)
		t.Logf("%v passed", time.Since(began))
		got := w.backend.counted()
		// Each node renews its Lease every 10 s (KEP-589) and writes its status every 5 minutes.
		limits := map[string]int{"leases": nodes * (minutes*6 + 1), "minions": nodes * (minutes/5 + 1)}
		for kind, n := range got {
			if n > limits[kind] {
				t.Errorf("%d writes of %s in %d minutes; expected %d at most", n, kind, minutes, limits[kind])
			}
		}
		if got["leases"] < nodes*(minutes*6-1) {
			t.Errorf("%d leases were renewed; the nodes seem not to live", got["leases"])
		}
	})
}

func TestThousandNodesRegister(t *testing.T) {
	simulate(t, 0, func(w *world) {
		w.nodes(0, 1000)
		w.deploy("web", 1000)
		took := w.until("1000 pods on 1000 nodes to be ready", 30*time.Second, w.settled("web", "docker.io/library/app:1", 1000))
		t.Logf("1000 pods were ready after %v", took)
	})
}
