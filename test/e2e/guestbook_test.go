package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The example that `make up` puts up, as its readers use it.
func TestGuestbook(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "examples", "guestbook", "guestbook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// Only the namespace is another one.
	manifest := regexp.MustCompile(`(?m)^(\s+name(?:space)?): guestbook$`).ReplaceAllString(string(b), "$1: "+ns)
	if strings.Count(manifest, ns) < 5 {
		t.Fatalf("the manifest does not name its namespace as it did:\n%s", manifest)
	}
	if out, err := run(manifest, "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"redis", "web"} {
		kubectl(t, "-n", ns, "rollout", "status", "deployment/"+name, "--timeout=120s")
	}
	page := "http://" + machineAddr + ":30080/"
	mustSay(t, "the page through its NodePort", "The Knarr guestbook", func() (string, error) { return fetch(page) })
	mustSay(t, "the page on another machine", "The Knarr guestbook", func() (string, error) { return fetchFromOutside(t, page) })

	sign := func(text string) {
		t.Helper()
		eventually(t, 15*time.Second, "signing", func() error {
			resp, err := http.PostForm(page, url.Values{"name": {"Leif"}, "message": {text}})
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s", resp.Status)
			}
			return nil
		})
	}
	sign("hello from e2e")
	redis := func(args ...string) string {
		t.Helper()
		return kubectl(t, append([]string{"-n", ns, "exec", "deploy/redis", "--", "redis-cli"}, args...)...)
	}
	stored := func() string {
		var out strings.Builder
		for _, key := range strings.Fields(redis("keys", "*")) {
			out.WriteString(redis("lrange", key, "0", "-1"))
		}
		return out.String()
	}
	if got := stored(); !strings.Contains(got, "hello from e2e") {
		t.Errorf("Redis has %q", got)
	}
	// Every web pod shows what one of them took.
	seen := map[string]bool{}
	pod := regexp.MustCompile(`web-[0-9a-z]+-[0-9a-z]+`)
	eventually(t, 20*time.Second, "the page from all three pods", func() error {
		body, err := fetch(page)
		if err != nil {
			return err
		}
		if !strings.Contains(body, "hello from e2e") {
			t.Fatalf("the page does not show the entry:\n%s", body)
		}
		info, err := fetch(page + "api/info")
		if err != nil {
			return err
		}
		if seen[pod.FindString(info)] = true; len(seen) < 3 {
			return fmt.Errorf("seen: %v", seen)
		}
		return nil
	})

	// Without Redis the web pods are not ready; another Redis comes by itself, and the book can be signed again.
	old := kubectl(t, "-n", ns, "get", "pod", "-l", "app=redis", "-o", "name")
	kubectl(t, append([]string{"-n", ns, "delete"}, strings.TrimSpace(old))...)
	kubectl(t, "-n", ns, "rollout", "status", "deployment/redis", "--timeout=60s")
	kubectl(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=60s")
	if now := kubectl(t, "-n", ns, "get", "pod", "-l", "app=redis", "-o", "name"); now == old {
		t.Errorf("the Redis pod is still %s", now)
	}
	sign("signed again")
	if got := stored(); !strings.Contains(got, "signed again") {
		t.Errorf("the new Redis has %q", got)
	}

	kubectl(t, "-n", ns, "set", "image", "deployment/web", "web=docker.io/knarr/guestbook:v2")
	kubectl(t, "-n", ns, "rollout", "status", "deployment/web", "--timeout=60s")
	mustSay(t, "the new version", "signed again", func() (string, error) { return fetch(page) })
}
