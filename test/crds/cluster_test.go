package crds

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/store"
)

// everyone is an administrator.
type everyone struct{}

func (everyone) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}, true, nil
}

// cluster is a control plane over memory, behind plain HTTP.
type cluster struct {
	t          *testing.T
	kubeconfig string
	kubectlBin string
}

// start runs a control plane until the test ends.
func start(t *testing.T) *cluster {
	t.Helper()
	services, pods := netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	plane, err := controlplane.New(controlplane.Config{
		Backend: store.NewMem(), ServiceCIDR: services, ClusterCIDR: pods, CA: []byte("ca"), Log: log,
		Initial: controlplane.Params{ServiceCIDR: services, ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := plane.Run(ctx); err != nil {
			t.Errorf("the control plane ended: %v", err)
		}
	})
	h := httptest.NewServer(server.New(server.Config{Registry: plane.Registry, Authorizer: authz.Union{authz.Masters{}}, Log: log, Authenticator: everyone{}}))
	t.Cleanup(func() { h.CloseClientConnections(); h.Close(); cancel(); running.Wait() })
	<-plane.Ready()
	c := &cluster{t: t, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}`, h.URL)
	if err := os.WriteFile(c.kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.kubectlBin, err = filepath.Abs("../../bin/libexec/kubectl"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.kubectlBin); err != nil {
		t.Skip("no kubectl has been built: make build")
	}
	return c
}

// kubectl runs the real kubectl.
func (c *cluster) kubectl(args ...string) (string, error) {
	cmd := exec.CommandContext(c.t.Context(), c.kubectlBin, args...)
	cmd.Env = []string{"HOME=" + filepath.Dir(c.kubeconfig), "KUBECONFIG=" + c.kubeconfig}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// must is kubectl where it has to succeed.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	out, err := c.kubectl(args...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// install applies the definitions in a folder, from the server's side as their size demands, and waits until they are established.
func (c *cluster) install(dir string) {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(string(b), "\nkind: CustomResourceDefinition\n") { // there are policies and settings beside them
			c.must("apply", "--server-side", "--filename", file)
		}
	}
	c.must("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
}

// goTest runs the tests of a package in a folder and returns how many passed, without those that hold others.
func (c *cluster) goTest(dir string, env []string, args ...string) (passed int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "go", append([]string{"test", "-count=1", "-v"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append(env, "CGO_ENABLED=0", "KUBECONFIG="+c.kubeconfig)...)
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(strings.TrimSpace(line), "--- PASS: ") {
			passed++
		}
	}
	if err != nil {
		c.t.Errorf("go %s in %s: %v\n%s", strings.Join(cmd.Args[1:], " "), dir, err, failures(string(out)))
	}
	return passed
}

// failures leaves out what tests that passed said.
func failures(out string) string {
	var kept []string
	for line := range strings.Lines(out) {
		if text := strings.TrimSpace(line); !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- PASS") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// moduleDir is where a module that this one requires has been unpacked.
func moduleDir(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Fatalf("finding the module %s: %v", path, err)
	}
	return dir
}
