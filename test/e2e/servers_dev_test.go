package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knarr-io/knarr/test/history"
)

// servers are the servers of a dev cluster, the first n of its nodes. Which of them answer changes: whatever is asked here is asked at one after the
// other.
type servers struct {
	*dev
	n int
}

// member is one server, as another one sees it.
type member struct {
	Name    string `json:"name"`
	Learner bool   `json:"learner"`
	Leader  bool   `json:"leader"`
	Answers bool   `json:"answers"`
}

// at is the i-th server, from 1, for clients.
func (s *servers) at(t testing.TB, i int) history.Server {
	t.Helper()
	n := s.node(i)
	return serverAt(t, n.name, n.kubeconfig(), "")
}

func (s *servers) all(t testing.TB) (out []history.Server) {
	t.Helper()
	for i := range s.n {
		out = append(out, s.at(t, i+1))
	}
	return out
}

// send sends a request to one server, and reads the answer into out unless that is nil.
func send(to history.Server, method, path string, body, out any) error {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, to.URL+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	c := *to.Client
	c.Timeout = 5 * time.Second
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: %s %s: %s: %s", to.Name, method, path, resp.Status, bytes.TrimSpace(b))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// ask is send to any server that answers.
func (s *servers) ask(t testing.TB, method, path string, body, out any) error {
	t.Helper()
	var errs []error
	for _, to := range s.all(t) {
		err := send(to, method, path, body, out)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// settled waits until every server is ready, all answer each other and agree on who leads, and returns the leader's number.
func (s *servers) settled(t testing.TB) (leader int) {
	t.Helper()
	all := s.all(t)
	eventually(t, time.Minute, "all servers ready and of one mind", func() error {
		leader = 0
		for _, to := range all {
			if err := send(to, http.MethodGet, "/readyz", nil, nil); err != nil {
				return err
			}
			members, err := s.members(to)
			if err != nil {
				return err
			}
			if len(members) != s.n {
				return fmt.Errorf("%s knows of %d servers", to.Name, len(members))
			}
			for _, m := range members {
				if !m.Answers || m.Learner {
					return fmt.Errorf("%s says of another: %+v", to.Name, m)
				}
			}
			i := slices.IndexFunc(members, func(m member) bool { return m.Leader })
			if i < 0 {
				return fmt.Errorf("%s knows of no leader", to.Name)
			}
			number := slices.IndexFunc(all, func(a history.Server) bool { return a.Name == members[i].Name }) + 1
			if leader != 0 && leader != number {
				return fmt.Errorf("%s takes node-%d for the leader, another one node-%d", to.Name, number, leader)
			}
			leader = number
		}
		return nil
	})
	return leader
}

// members lists the servers as one of them sees them.
func (s *servers) members(to history.Server) ([]member, error) {
	var list struct{ Items []member }
	err := send(to, http.MethodGet, "/knarr/v1/servers", nil, &list)
	return list.Items, err
}

// host is the address of the i-th server.
func (s *servers) host(t testing.TB, i int) string {
	t.Helper()
	u, err := url.Parse(s.at(t, i).URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname()
}

// isolate cuts a server off from the other servers; agents and clients still reach it. It is taken back with rejoin, and else goes with
// the node's network namespace.
func (s *servers) isolate(t testing.TB, i int) {
	t.Helper()
	var others []string
	for j := range s.n {
		if j+1 != i {
			others = append(others, s.host(t, j+1))
		}
	}
	set := "{ " + strings.Join(others, ", ") + " }"
	s.node(i).nft(t, "add table ip drill",
		"add chain ip drill in { type filter hook input priority -200; }", "add rule ip drill in ip saddr "+set+" drop",
		"add chain ip drill out { type filter hook output priority -200; }", "add rule ip drill out ip daddr "+set+" drop")
}

// rejoin takes isolate back.
func (s *servers) rejoin(t testing.TB, i int) { t.Helper(); s.node(i).nft(t, "delete table ip drill") }

// nft gives commands to nft in the node's network namespace.
func (n devNode) nft(t testing.TB, commands ...string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	var out []byte
	var err error
	n.inside(t, func() { out, err = cmd.CombinedOutput() })
	if err != nil {
		t.Fatalf("nft in the network of %s: %v\n%s", n.name, err, out)
	}
}

// alive reports whether a process runs; one that has ended may stay a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return pid != 0 && err == nil && !strings.Contains(string(b), ") Z ")
}

// log is what the node's knarr process has logged last.
func (n devNode) log(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("tail", "-n", "50", n.dir+"/knarr.log").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
