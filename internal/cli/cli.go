// Package cli is what people type: one file per command, and what commands share.
//
// What flows through it: arguments in, words out; the server's own wiring is in cmd/knarr. What must stay true: an error says
// what was tried, what came of it and what to do next; a command that succeeds prints what to type next where there is
// something.
package cli

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// DefaultDataDir is where Knarr keeps everything unless told otherwise.
const DefaultDataDir = "/var/lib/knarr"

// ExitCode is an error that has been explained already and only carries the code to exit with.
type ExitCode int

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// KubeconfigPath is the administrator's kubeconfig of the cluster in dataDir.
func KubeconfigPath(dataDir string) string { return filepath.Join(dataDir, "kubeconfig") }

// NewLogger returns a logger to standard error at the given level.
func NewLogger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}

// HostName is this machine's name as a Node's name.
func HostName() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("this machine's host name: %w (give one with --node-name)", err)
	}
	return strings.ToLower(name), nil
}

// MachineAddress is the IPv4 address that this machine uses to reach others, or else its first one.
func MachineAddress() (netip.Addr, error) {
	// Connecting a UDP socket sends nothing; it only asks the kernel which source address a packet would have.
	if c, err := net.Dial("udp4", "192.0.2.1:9"); err == nil {
		defer c.Close()
		if a, ok := netip.AddrFromSlice(c.LocalAddr().(*net.UDPAddr).IP.To4()); ok && !a.IsLoopback() {
			return a, nil
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP.To4()); ok && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
				return ip, nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("this machine has no IPv4 address but loopback; give one with --node-ip")
}

// ReadConfigFile sets flags from a YAML file of their names, except those given on the command line. An empty path is no file.
func ReadConfigFile(path string, flags *pflag.FlagSet) error {
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	for name, v := range values {
		f := flags.Lookup(name)
		if f == nil || name == "config" {
			return fmt.Errorf("--config %s: there is no setting %q; settings are named as the flags of this command (--help lists them)", path, name)
		}
		if f.Changed {
			continue
		}
		text := fmt.Sprint(v)
		if list, ok := v.([]any); ok {
			parts := make([]string, len(list))
			for i := range list {
				parts[i] = fmt.Sprint(list[i])
			}
			text = strings.Join(parts, ",")
		}
		if err := flags.Set(name, text); err != nil {
			return fmt.Errorf("--config %s: %s: %w", path, name, err)
		}
	}
	return nil
}
