package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// obedient is a shell script that does nothing and ends when told to.
const obedient = "trap 'exit 0' TERM; while :; do sleep 0.1; done"

func TestKubectlReadsLogs(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: first
    image: busybox:1
    command: [sh, -c, 'i=1; while [ $i -le 100 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo to stderr >&2; sleep 0.2; touch /tmp/said; while :; do [ -e /tmp/more ] && echo more && rm /tmp/more; sleep 0.1; done']
    readinessProbe: {exec: {command: [cat, /tmp/said]}, periodSeconds: 1}
  - name: second
    image: busybox:1
    command: [sh, -c, 'echo "this is life"; sleep 1; exit 7']
`)
	session(t, ns, []step{
		{"", "wait --for=jsonpath='{.status.containerStatuses[0].ready}'=true pod/talker --timeout=60s", "condition met"},
		{"", "wait --for=jsonpath='{.status.containerStatuses[1].restartCount}'=1 pod/talker --timeout=60s", "condition met"},
		{"", "logs talker -c first --tail=3", "line 99 line 100 to stderr"},
		{"", "logs talker", "Defaulted container \"first\" out of: first, second line 1 line 2"},
		{"", "logs talker -c second --previous", "this is life"},
		{"", "!logs talker -c first --previous", `previous terminated container "first" in pod "talker" not found`},
		{"", "!logs talker -c nosuch", "container nosuch is not valid for pod talker"},
		{"", "logs talker -c first --since=1h --tail=1", "to stderr"},
		{"", "logs talker -c first --limit-bytes=6", "line 1"},
		{"", "logs -l app=talker --all-containers --prefix --tail=1", "[pod/talker/first] to stderr"},
		{"", "!logs nosuch", `pods "nosuch" not found`},
	})
	eventually(t, 10*time.Second, "logs --since=1s of a container that is silent", func() error {
		if out := kubectl(t, "-n", ns, "logs", "talker", "-c", "first", "--since=1s"); out != "" {
			return fmt.Errorf("they are:\n%s", out)
		}
		return nil
	})
	stamped := kubectl(t, "-n", ns, "logs", "talker", "-c", "first", "--timestamps", "--tail=1")
	if !regexp.MustCompile(`^20\d\d-\d\d-\d\dT\S+Z to stderr\n$`).MatchString(stamped) {
		t.Errorf("logs --timestamps: %q", stamped)
	}
	follow := start(t, "-n", ns, "logs", "-f", "talker", "-c", "first", "--tail=1")
	follow.waitFor(t, 10*time.Second, "to stderr")
	kubectl(t, "-n", ns, "exec", "talker", "-c", "first", "--", "touch", "/tmp/more")
	follow.waitFor(t, 10*time.Second, "to stderr more")
	kubectl(t, "-n", ns, "delete", "pod", "talker")
	if err := follow.wait(t, 20*time.Second); err != nil {
		t.Errorf("logs -f after the pod's end: %v\n%s", err, follow)
	}
}

func TestKubectlRunsCommandsInContainers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "-n", ns, "run", "box", "--image=busybox:1", "--restart=Never", "--command", "--", "sh", "-c", obedient)
	session(t, ns, []step{
		{"", "wait --for=condition=Ready pod/box --timeout=60s", "condition met"},
		{"", "exec box -- echo hello", "hello"},
		{"from stdin", "exec -i box -- cat", "from stdin"},
		{"", "exec box -- hostname", "box"},
		{"", "exec pod/box -- sh -c 'echo out; echo err >&2'", "out"},
		{"", "!exec box -- sh -c 'exit 42'", "command terminated with exit code 42"},
		{"", "!exec box -- nosuchcommand", "executable file not found"},
		{"", "!exec nosuch -- true", `pods "nosuch" not found`},
		{"", "!exec box -c nosuch -- true", "container nosuch is not valid for pod box out of: box"},
	})
	var exit *exec.ExitError
	if err := command(context.Background(), "-n", ns, "exec", "box", "--", "sh", "-c", "exit 42").Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("kubectl exec of a command that exits with 42: %v", err)
	}
	// Much in both directions: what comes back is what went in.
	big := strings.Repeat("0123456789abcde\n", 1<<18) // 4 MiB
	if out, err := run(big, "-n", ns, "exec", "-i", "box", "--", "cat"); err != nil || out != big {
		t.Errorf("4 MiB through exec -i: %d bytes came back, %v", len(out), err)
	}
	// A terminal, which script(1) gives kubectl.
	if path, err := exec.LookPath("script"); err == nil {
		line := fmt.Sprintf("%s kubectl --kubeconfig %s/kubeconfig -n %s exec -it box -- sh -c 'tty; until stty size | grep 33; do sleep 0.1; done 2>/dev/null'", cluster.bin, cluster.dataDir, ns)
		out, err := exec.Command(path, "-qec", "stty cols 99 rows 33; "+line, "/dev/null").CombinedOutput()
		if err != nil || !shows(string(out), "/dev/pts/0…33 99") {
			t.Errorf("exec -it on a terminal of 33 x 99: %v\n%s", err, out)
		}
	}
}

func TestKubectlAttaches(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	session(t, ns, []step{
		{"2+3\n", "run -i --rm --quiet calc --image=busybox:1 --restart=Never --pod-running-timeout=60s --command -- sh -c 'read x; echo $(($x))'", "5"},
		{"", "run echo --image=busybox:1 --restart=Never -i --attach=false --command -- sh -c 'while read x; do echo got $x; done'", "pod/echo created"},
		{"", "wait --for=condition=Ready pod/echo --timeout=60s", "condition met"},
		{"one\ntwo\n", "attach -i echo", "got one got two"},
	})
}

func TestKubectlCopiesFiles(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "-n", ns, "run", "box", "--image=busybox:1", "--restart=Never", "--command", "--", "sh", "-c", obedient)
	kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
	dir := t.TempDir()
	content := strings.Repeat("some content\n", 100_000)
	if err := os.MkdirAll(filepath.Join(dir, "in", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "in", "deep", "file"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "cp", filepath.Join(dir, "in"), ns+"/box:/tmp/there")
	if got := kubectl(t, "-n", ns, "exec", "box", "--", "cat", "/tmp/there/deep/file"); got != content {
		t.Errorf("kubectl cp into the container: %d bytes arrived, want %d", len(got), len(content))
	}
	kubectl(t, "cp", ns+"/box:/tmp/there", filepath.Join(dir, "back"))
	if got, err := os.ReadFile(filepath.Join(dir, "back", "deep", "file")); err != nil || string(got) != content {
		t.Errorf("kubectl cp out of the container: %d bytes arrived, want %d; %v", len(got), len(content), err)
	}
}

func TestKubectlForwardsPorts(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, web)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	kubectl(t, "-n", ns, "expose", "deploy/web", "--port=80", "--target-port=http")
	for _, target := range []string{"deploy/web", "svc/web"} {
		remote := map[string]string{"deploy/web": "8080", "svc/web": "80"}[target]
		f := start(t, "-n", ns, "port-forward", target, ":"+remote)
		f.waitFor(t, 10*time.Second, "Forwarding from 127.0.0.1:")
		m := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindString(f.String())
		for range 5 { // each on a connection of its own
			if got, err := fetch("http://" + m + "/"); err != nil || !strings.HasPrefix(got, "v1 web-") {
				t.Errorf("through port-forward %s: %q, %v\n%s", target, got, err, f)
			}
		}
	}
	if out := refused(t, "", "-n", ns, "port-forward", "pod/nosuch", ":80"); !shows(out, `pods "nosuch" not found`) {
		t.Error(out)
	}
}

// fetch gets a URL over a connection of its own.
func fetch(url string) (string, error) {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}
