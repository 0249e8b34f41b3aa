package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Settings are what a cluster is to be.
type Settings struct {
	// Subnet has the addresses of the nodes and of the machine; a /24.
	Subnet netip.Prefix `json:"subnet"`
	Nodes  []Node       `json:"nodes"`
	// Overlay is knarr server's --overlay; "" is its default.
	Overlay string `json:"overlay,omitempty"`
	// ServerArgs are further flags of knarr server.
	ServerArgs []string `json:"serverArgs,omitempty"`
	// UpstreamDNS overrides the servers that the machine has.
	UpstreamDNS []string `json:"upstreamDNS,omitempty"`
	// ForwardingWas is what the machine's ip_forward was before it was changed; "" if it was not.
	ForwardingWas string `json:"forwardingWas,omitempty"`
}

// Node is one node; its role stays.
type Node struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
	Server bool   `json:"server,omitempty"`
}

// Role is the node's part in words.
func (n Node) Role() string {
	if n.Server {
		return "server"
	}
	return "agent"
}

// readSettings reads the settings; there may be none yet.
func readSettings(path string) (s Settings, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && len(s.Nodes) > 0 && (!s.Subnet.Addr().Is4() || s.Subnet.Bits() != 24) {
		err = fmt.Errorf("subnet %v is not an IPv4 /24", s.Subnet)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// write replaces the file as a whole.
func (s Settings) write(path string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (s Settings) servers() (out []Node) {
	for _, n := range s.Nodes {
		if n.Server {
			out = append(out, n)
		}
	}
	return out
}

// wish is what knarr dev up was told; zero values are what it was not told.
type wish struct {
	nodes, servers int
	overlay        string
	serverArgs     []string
	upstreamDNS    []string
}

// planNodes returns the settings that fulfil a wish: nodes are added, those that are there keep their roles.
func planNodes(s Settings, w wish) (Settings, error) {
	s.Nodes = slices.Clone(s.Nodes)
	have := len(s.servers())
	if w.nodes == 0 {
		w.nodes = max(len(s.Nodes), w.servers, 1)
	}
	if w.servers == 0 {
		w.servers = max(have, 1)
	}
	switch {
	case w.nodes < 1 || w.nodes > maxNodes:
		return s, fmt.Errorf("--nodes %d: want 1 to %d", w.nodes, maxNodes)
	case w.servers > w.nodes:
		return s, fmt.Errorf("--servers %d: there are only --nodes %d", w.servers, w.nodes)
	case w.nodes < len(s.Nodes):
		return s, fmt.Errorf("--nodes %d: there are %d already; knarr dev kill NAME ends one, knarr dev down --delete-data all", w.nodes, len(s.Nodes))
	case w.servers < have:
		return s, fmt.Errorf("--servers %d: there are %d already, and nodes keep their roles", w.servers, have)
	case w.servers-have > w.nodes-len(s.Nodes):
		return s, fmt.Errorf("--servers %d: nodes keep their roles, so that takes --nodes %d", w.servers, len(s.Nodes)+w.servers-have)
	}
	for number := len(s.Nodes) + 1; number <= w.nodes; number++ {
		s.Nodes = append(s.Nodes, Node{Name: nodeName(number), Number: number, Server: have < w.servers})
		have = len(s.servers())
	}
	if len(w.serverArgs) > 0 {
		if err := checkServerArgs(w.serverArgs); err != nil {
			return s, err
		}
		s.ServerArgs = w.serverArgs
	}
	if w.overlay != "" {
		s.Overlay = w.overlay
	}
	if len(w.upstreamDNS) > 0 {
		s.UpstreamDNS = w.upstreamDNS
	}
	return s, nil
}

// checkServerArgs refuses the flags that knarr dev gives itself.
func checkServerArgs(args []string) error {
	for _, a := range args {
		flag, _, _ := strings.Cut(a, "=")
		if slices.Contains([]string{"--data-dir", "--node-name", "--node-ip", "--listen", "--join", "--token", "--write-kubeconfig", "--config"}, flag) {
			return fmt.Errorf("knarr dev chooses %s for each node by itself", flag)
		}
	}
	return nil
}

// withoutAgent reports whether servers are no nodes themselves.
func (s Settings) withoutAgent() bool {
	return slices.Contains(s.ServerArgs, "--no-agent") || slices.Contains(s.ServerArgs, "--no-agent=true")
}
