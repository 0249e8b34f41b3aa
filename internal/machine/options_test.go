package machine

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// given are options as the flags' defaults make them.
func given(dir string) ServerOptions {
	return ServerOptions{
		DataDir: dir, Listen: "0.0.0.0:6443", NodeName: "n", NodeIP: "192.0.2.1", ClusterCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16",
		ClusterDomain: "cluster.local", Overlay: "auto", NoAgent: true, LogLevel: "info",
	}
}

func TestWhatIsNotGivenIsDerived(t *testing.T) {
	dir := t.TempDir()
	s, err := given(dir).complete()
	if err != nil {
		t.Fatal(err)
	}
	if s.dnsAddr != netip.MustParseAddr("10.96.0.10") {
		t.Errorf("the cluster's DNS is at %s, want the tenth address of the Services'", s.dnsAddr)
	}
	if s.Kubeconfig != filepath.Join(dir, "kubeconfig") {
		t.Errorf("the kubeconfig goes to %s", s.Kubeconfig)
	}
	if s.apiURL() != "https://127.0.0.1:6443" || s.reached() != netip.MustParseAddrPort("192.0.2.1:6443") {
		t.Errorf("clients here use %s, others %s", s.apiURL(), s.reached())
	}
	o := given(dir)
	o.ServiceCIDR, o.ClusterDNS = "10.96.3.7/24", "10.96.3.99"
	if s, err = o.complete(); err != nil || s.serviceNet != netip.MustParsePrefix("10.96.3.0/24") || s.dnsAddr != netip.MustParseAddr("10.96.3.99") {
		t.Errorf("an address within the range: %v %v %v", err, s.serviceNet, s.dnsAddr)
	}
}

func TestANodeNeedsAnAddressThatOthersReach(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "::1", "fe80::1", "224.0.0.1"} {
		o := given(t.TempDir())
		o.NodeIP = address
		if _, err := o.complete(); err == nil || !strings.Contains(err.Error(), "--node-ip "+address+": want an address by which other machines and pods reach this one") {
			t.Errorf("--node-ip %s: %v", address, err)
		}
	}
}

func TestTokenComesFromAFileToo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("K10secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := given(t.TempDir())
	o.Token, o.TokenFile = "another", file
	if s, err := o.complete(); err != nil || s.Token != "K10secret" {
		t.Errorf("token %q, %v: want the file's, without its line's end", s.Token, err)
	}
}

func TestAgentsOptions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("agents need root")
	}
	o := AgentOptions{DataDir: t.TempDir(), NodeIP: "192.0.2.7", LogLevel: "info", CRIEndpoint: "/run/elsewhere.sock", Servers: []string{"https://192.0.2.1:6443"}}
	a, err := o.complete()
	if err != nil {
		t.Fatal(err)
	}
	if a.nodeName == "" || a.nodeAddr != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("node %q at %s", a.nodeName, a.nodeAddr)
	}
	for _, server := range []string{"192.0.2.1:6443", "https://192.0.2.1", "http://192.0.2.1:6443"} {
		o.Servers = []string{server}
		if _, err := o.complete(); err == nil {
			t.Errorf("server %q was accepted", server)
		}
	}
}

func TestTheAdmissionConfigurationIsReadFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: v1\nkind: ConfigMap\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := given(t.TempDir())
	o.AdmissionConfig = file
	if _, err := o.complete(); err == nil || !strings.Contains(err.Error(), "--admission-control-config-file: ") {
		t.Errorf("taken for an AdmissionConfiguration: %v", err)
	}
}
