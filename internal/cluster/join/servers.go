package join

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/pki"
)

// Servers are the servers of a cluster as this machine knows them, as URLs https://HOST:PORT: those it was told at its start, and those that
// the cluster's own list names, EndpointSlice default/kubernetes. It decides which one is used.
type Servers struct {
	file string // where the cluster's list is kept for the next start; "" keeps nothing
	log  *slog.Logger

	mu      sync.Mutex
	given   []string
	listed  []string
	current string
	failed  map[string]time.Time // when each was last found failing
	changed chan struct{}        // closed with the next change of the list
}

// forgiven is how long a server that failed is not chosen while there are others.
const forgiven = 10 * time.Second

// NewServers returns the given servers and those that an earlier run kept in file.
func NewServers(file string, log *slog.Logger, given ...string) (*Servers, error) {
	s := &Servers{file: file, log: log, given: given, failed: map[string]time.Time{}, changed: make(chan struct{})}
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		s.listed = strings.Fields(string(b))
	}
	return s, nil
}

// All returns every server, and a channel that is closed when there are others.
func (s *Servers) All() ([]string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all(), s.changed
}

func (s *Servers) all() []string {
	out := slices.Clone(s.given)
	for _, l := range s.listed {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// Current returns the server to ask.
func (s *Servers) Current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == "" {
		s.current = choose(s.all(), s.failed, time.Now(), rand.IntN)
	}
	return s.current
}

// Fail says that server did not answer as it should: another one is used from now on, if there is one.
func (s *Servers) Fail(server string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.failed[server] = now
	if s.current != server {
		return
	}
	if s.current = choose(s.all(), s.failed, now, rand.IntN); s.current != server {
		s.log.Warn("a server fails, using another one", "server", server, "now", s.current, "err", why)
	}
}

// choose returns one of the servers that have not failed lately, by chance, so that the machines of a server that failed spread over the
// others; or else the one whose failure is longest ago.
func choose(servers []string, failed map[string]time.Time, now time.Time, chance func(int) int) string {
	good := slices.DeleteFunc(slices.Clone(servers), func(s string) bool {
		at, ok := failed[s]
		return ok && now.Sub(at) < forgiven
	})
	if len(good) > 0 {
		return good[chance(len(good))]
	}
	if len(servers) == 0 {
		return ""
	}
	return slices.MinFunc(servers, func(a, b string) int { return failed[a].Compare(failed[b]) })
}

// Follow keeps the list as the cluster has it until ctx ends. It watches all slices, as the network does: so there is one watch for
// both.
func (s *Servers) Follow(ctx context.Context, c client.Client) error {
	bySlice := map[string]*discoveryv1.EndpointSlice{}
	client.Follow(ctx, s.log, c, api.EndpointSlices, client.ListOptions{}, func(b client.Batch) {
		changed := b.Full
		if b.Full {
			clear(bySlice)
		}
		for _, e := range b.Events {
			slice := e.Object.(*discoveryv1.EndpointSlice)
			if slice.Namespace != metav1.NamespaceDefault || slice.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
				continue
			}
			changed = true
			if e.Type == client.Deleted {
				delete(bySlice, slice.Name)
			} else {
				bySlice[slice.Name] = slice
			}
		}
		if changed {
			s.set(serversOf(bySlice))
		}
	})
	return nil
}

// serversOf returns the URLs of the servers that slices of the Service kubernetes name.
func serversOf(bySlice map[string]*discoveryv1.EndpointSlice) []string {
	var out []string
	for _, slice := range bySlice {
		port := 0
		for _, p := range slice.Ports {
			if p.Port != nil && (p.Name == nil || *p.Name == "https") {
				port = int(*p.Port)
			}
		}
		for _, e := range slice.Endpoints {
			if port == 0 || e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				out = append(out, "https://"+net.JoinHostPort(a, strconv.Itoa(port)))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// set makes list the cluster's servers. An empty one says nothing: somebody must have sent it.
func (s *Servers) set(list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(list) == 0 || slices.Equal(list, s.listed) {
		return
	}
	known := len(s.all())
	s.listed = list
	if s.file != "" {
		if err := pki.WriteFile(s.file, lines(list), 0o644); err != nil {
			s.log.Warn("keeping the list of servers", "err", err)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	for server := range s.failed {
		if !slices.Contains(s.all(), server) {
			delete(s.failed, server)
		}
	}
	if known > 1 || len(s.all()) > 1 {
		s.log.Info("the cluster's servers", "servers", strings.Join(list, " "))
	}
}
