package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/cluster"
)

// server is the administrator's access to one server.
type server struct {
	node Node
	http *http.Client
	host string
}

// apiTimeout is how long a server may take to answer before another one is tried.
const apiTimeout = 5 * time.Second

func (c *Cluster) server(n Node) (*server, error) {
	path := cluster.KubeconfigPath(c.nodeDir(n))
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%s has not served its API yet", n.Name)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, err
	}
	config.Timeout = apiTimeout
	hc, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return &server{node: n, http: hc, host: config.Host}, nil
}

func (s *server) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.host+path, nil)
	if err != nil {
		return err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s to %s", s.node.Name, resp.Status, path)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// serverReady asks one server.
func (c *Cluster) serverReady(ctx context.Context, n Node) error {
	s, err := c.server(n)
	if err != nil {
		return err
	}
	return s.get(ctx, "/readyz", nil)
}

// api returns a server that is ready.
func (c *Cluster) api(ctx context.Context) (*server, error) {
	var errs []error
	for _, n := range c.servers() {
		s, err := c.server(n)
		if err == nil {
			err = s.get(ctx, "/readyz", nil)
		}
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// states are what the API says of the nodes, by their names: "Ready", or why not.
type states struct {
	ready   map[string]string
	renewed map[string]time.Time // when the agent was last heard of
}

func (c *Cluster) states(ctx context.Context) (st states, err error) {
	s, err := c.api(ctx)
	if err != nil {
		return st, err
	}
	var nodes corev1.NodeList
	if err := s.get(ctx, "/api/v1/nodes", &nodes); err != nil {
		return st, err
	}
	var leases coordinationv1.LeaseList
	if err := s.get(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", &leases); err != nil {
		return st, err
	}
	st = states{ready: map[string]string{}, renewed: map[string]time.Time{}}
	for _, n := range nodes.Items {
		st.ready[n.Name] = readiness(n)
	}
	for _, l := range leases.Items {
		if l.Spec.RenewTime != nil {
			st.renewed[l.Name] = l.Spec.RenewTime.Time
		}
	}
	return st, nil
}

func readiness(n corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return "Ready"
		}
		return fmt.Sprintf("NotReady (%s: %s)", c.Reason, c.Message)
	}
	return "NotReady (it has not said anything yet)"
}

// awaitReady waits until nodes are Ready. What the API says of those that were started just now must be newer than that.
func (s *session) awaitReady(ctx context.Context, nodes []Node) error {
	told := map[string]bool{}
	return s.until(ctx, "all nodes to be ready", func() error {
		for _, n := range nodes {
			if !n.Server {
				continue
			}
			if err := s.serverReady(ctx, n); err != nil {
				return err
			}
		}
		st, err := s.states(ctx)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if told[n.Name] || n.Server && s.withoutAgent() {
				continue
			}
			why := st.ready[n.Name]
			if why == "" {
				why = "not registered yet"
			}
			if why == "Ready" && st.renewed[n.Name].Before(s.startOf(n)) {
				why = "not heard of since it was started"
			}
			if why != "Ready" {
				err = errors.Join(err, fmt.Errorf("%s: %s", n.Name, why))
				continue
			}
			told[n.Name] = true
			fmt.Fprintf(s.out, "%s is Ready after %v\n", n.Name, time.Since(s.began).Round(10*time.Millisecond))
		}
		return err
	})
}

// startOf is when this session started a node; the zero time if it did not.
func (s *session) startOf(n Node) (at time.Time) {
	for _, p := range s.processes {
		if p.node == n {
			at = p.started
		}
	}
	return at
}
