package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/knarr-io/knarr/test/history"
)

// TestServersComeAndGo grows one server to three while clients write, lets one be away for longer than the others' etcd remembers, and removes one for
// good.
func TestServersComeAndGo(t *testing.T) {
	t.Parallel()
	dev := devCluster(t, 1, 1, "--no-agent")
	if dev == nil {
		return
	}
	s := &servers{dev, 1}
	const ns = "default"
	w := startClients(t, ns, s.all(t)...)
	w.waitMore(t, 50)

	s.up(t, "--nodes", "3", "--servers", "3")
	w.Recorder.Mark("two more servers", w.Recorder.Now())
	dev.nodes, s.n = 3, 3
	leader := s.settled(t)
	w.Use(s.all(t)...)
	w.waitMore(t, 50)

	// Etcd keeps some hundred transactions; who lags further gets all data at once.
	away := leader%3 + 1
	s.node(away).stop(t)
	writeAlone(t, s.at(t, leader), ns, 1000)
	w.Recorder.Mark(fmt.Sprintf("1000 transactions without node-%d", away), w.Recorder.Now())
	s.node(away).start(t)
	s.settled(t)
	w.waitMore(t, 50)

	// The one that leads is removed: the others go on, and it does not come back.
	leader = s.settled(t)
	gone := s.node(leader)
	rest := []int{leader%3 + 1, (leader+1)%3 + 1}
	at := w.Recorder.Now()
	eventually(t, time.Minute, "the leader is removed", func() error {
		err := send(s.at(t, rest[0]), http.MethodDelete, "/knarr/v1/servers/"+gone.name, nil, nil)
		if err != nil && strings.Contains(err.Error(), "404") { // by an attempt that was not answered
			return nil
		}
		return err
	})
	removed := w.Recorder.Mark("the leader is removed", at)
	w.Use(s.at(t, rest[0]), s.at(t, rest[1]))
	eventually(t, time.Minute, "writes without the removed server", func() error {
		if _, ok := w.Recorder.Resumed(removed); !ok {
			return fmt.Errorf("none since %v", w.Recorder.Now()-removed.At)
		}
		return nil
	})
	eventually(t, time.Minute, gone.name+" has ended", func() error {
		if pid := gone.pid(); alive(pid) {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	})
	if o := w.Ask(t.Context(), s.at(t, leader)); o.Outcome == history.Done {
		t.Errorf("a server that was removed answers: %s", o)
	}
	gone.startOnly(t)
	eventually(t, time.Minute, gone.name+" has ended again", func() error {
		if pid := gone.pid(); alive(pid) {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	})
	if log := gone.log(t); !strings.Contains(log, "was removed from the cluster") {
		t.Errorf("%s does not say why it ends:\n%s", gone.name, log)
	}
	members, err := s.members(s.at(t, rest[0]))
	if err != nil || len(members) != 2 {
		t.Errorf("the servers that are left: %+v %v", members, err)
	}
	w.waitMore(t, 50)
	w.check(t)
}

// writeAlone writes n objects one after the other at one server, so that each is a transaction of its own.
func writeAlone(t testing.TB, to history.Server, namespace string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 2 { // as many transactions as are under way at once
		wg.Go(func() {
			path := "/api/v1/namespaces/" + namespace + "/configmaps"
			made := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": fmt.Sprintf("alone-%d", i)}}
			if err := send(to, http.MethodPost, path, made, nil); err != nil {
				t.Error(err)
			}
			for j := range n / 2 {
				made["data"] = map[string]string{"n": fmt.Sprint(j)}
				for send(to, http.MethodPut, fmt.Sprintf("%s/alone-%d", path, i), made, nil) != nil {
					if ctx.Err() != nil {
						t.Errorf("only %d of %d writes were acknowledged", j, n/2)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
