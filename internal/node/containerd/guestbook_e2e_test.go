package containerd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/image"
)

// TestGuestbookImages builds the example's images as `knarr image build` does, and runs them on the host's loopback with
// the security context of the example's manifest.
func TestGuestbookImages(t *testing.T) {
	s, _ := supervise(t, e2eOptions(t))
	c := dial(t, s)
	store, err := image.OpenStore(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, name := range []string{"web-v1", "web-v2", "redis"} {
		dir := filepath.Join("../../../examples/guestbook/images", name)
		spec, err := image.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		built, err := image.Build(t.Context(), dir, spec)
		if err != nil {
			t.Fatal(err)
		}
		var archive bytes.Buffer
		if err := image.Write(&archive, built); err != nil {
			t.Fatal(err)
		}
		size := archive.Len()
		stored, err := store.Import(t.Context(), &archive, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d kB", stored[0].Name, size/1024)
	}

	logs := t.TempDir()
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "guestbook", Namespace: "test", Uid: "1"},
		LogDirectory: logs,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: cgroupOf(s.options.DataDir), SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}},
	}
	sandbox, err := c.RunPodSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	run := func(config *cri.ContainerConfig, user int64) string {
		t.Helper()
		config.LogPath = config.Metadata.Name + ".log"
		config.Linux = &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			RunAsUser: &cri.Int64Value{Value: user}, RunAsGroup: &cri.Int64Value{Value: user}, ReadonlyRootfs: true, NoNewPrivs: true,
			Capabilities:     &cri.Capability{DropCapabilities: []string{"ALL"}},
			Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}}
		id, err := c.CreateContainer(t.Context(), sandbox, config, pod)
		if err == nil {
			err = c.StartContainer(t.Context(), id)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if t.Failed() {
				log, _ := os.ReadFile(filepath.Join(logs, config.LogPath))
				t.Logf("log of %s:\n%s", config.Metadata.Name, log)
			}
		})
		return id
	}
	data := t.TempDir()
	if err := os.Chown(data, 999, 999); err != nil {
		t.Fatal(err)
	}
	redis, web := freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(redis)
	id := run(&cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "redis"}, Image: &cri.ImageSpec{Image: "docker.io/knarr/guestbook-redis:v1"},
		Args:   []string{"--bind", "127.0.0.1", "--port", port, "--dir", "/data", "--appendonly", "yes", "--requirepass", "secret"},
		Envs:   []*cri.KeyValue{{Key: "REDISCLI_AUTH", Value: []byte("secret")}},
		Mounts: []*cri.Mount{{HostPath: data, ContainerPath: "/data"}},
	}, 999)
	run(&cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "web"}, Image: &cri.ImageSpec{Image: "docker.io/knarr/guestbook:v2"},
		Envs: []*cri.KeyValue{{Key: "REDIS_HOST", Value: []byte(redis)}, {Key: "REDIS_PASSWORD", Value: []byte("secret")}, {Key: "LISTEN", Value: []byte(web)}},
	}, 65532)

	for deadline := time.Now().Add(20 * time.Second); ; {
		r, err := http.Get("http://" + web + "/readyz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the web front end does not become ready: %v, %v", r, err)
		}
		<-time.After(20 * time.Millisecond)
	}
	probe, err := c.ExecSync(t.Context(), id, []string{"/usr/bin/redis-cli", "-p", port, "-e", "ping"}, 5*time.Second)
	if err != nil || probe.ExitCode != 0 || string(probe.Stdout) != "PONG\n" {
		t.Errorf("Redis' probe: %+v, %v", probe, err)
	}
	r, err := http.PostForm("http://"+web+"/", url.Values{"name": {"Leif"}, "message": {"land in sight"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, err := io.ReadAll(r.Body)
	if err != nil || !strings.Contains(string(page), "land in sight") || !strings.Contains(string(page), "<b>v2</b>") {
		t.Errorf("page after signing: %v\n%s", err, page)
	}
}

// freeAddress returns an address on which nobody listens yet.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr())
}
