package network

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadConfigNamesTheField(t *testing.T) {
	good := func() Config {
		return Config{DataDir: t.TempDir(), NodeName: "n", NodeIP: netip.MustParseAddr("192.0.2.1"), PodCIDR: netip.MustParsePrefix("10.244.0.0/24"),
			ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterDNS: netip.MustParseAddr("10.96.0.10")}
	}
	if _, err := New(good()); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for want, change := range map[string]func(*Config){
		`instance name "A b"`:          func(c *Config) { c.Instance = "A b" },
		`data directory "x"`:           func(c *Config) { c.DataDir = "x" },
		"is too long":                  func(c *Config) { c.DataDir = "/" + strings.Repeat("x", 100) },
		"pod CIDR":                     func(c *Config) { c.PodCIDR = netip.Prefix{} },
		"service CIDR \"fd00::/112\"":  func(c *Config) { c.ServiceCIDR = netip.MustParsePrefix("fd00::/112") },
		"node address \"::1\"":         func(c *Config) { c.NodeIP = netip.MustParseAddr("::1") },
		"node address 10.244.0.1":      func(c *Config) { c.NodeIP = netip.MustParseAddr("10.244.0.1") },
		"not inside of cluster CIDR":   func(c *Config) { c.ClusterCIDR = netip.MustParsePrefix("10.200.0.0/16") },
		"overlap":                      func(c *Config) { c.ServiceCIDR = netip.MustParsePrefix("10.0.0.0/8") },
		"cluster DNS address 10.9.9.9": func(c *Config) { c.ClusterDNS = netip.MustParseAddr("10.9.9.9") },
	} {
		cfg := good()
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestWriteConfig(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := WriteConfig(dir, "test"); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "cni", "conf"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v, want one file", files, err)
	}
	data, err := os.ReadFile(confFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Name    string
		Plugins []struct{ Type, Socket string }
	}
	if err := json.Unmarshal(data, &conf); err != nil || conf.Name != "knarr-test" || len(conf.Plugins) != 1 ||
		conf.Plugins[0].Type != "knarr-cni" || conf.Plugins[0].Socket != Socket(dir) {
		t.Errorf("%v\n%s", err, data)
	}
}
