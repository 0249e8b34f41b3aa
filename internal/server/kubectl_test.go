package server_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kubectl returns a function that runs the real kubectl against f, or skips the test where none has been built.
func kubectl(t *testing.T, f *fixture) func(stdin string, args ...string) (string, error) {
	t.Helper()
	bin := os.Getenv("KNARR_KUBECTL")
	if bin == "" {
		bin, _ = filepath.Abs("../../bin/libexec/kubectl")
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skip("no kubectl has been built: make build")
	}
	home := t.TempDir()
	return func(stdin string, args ...string) (string, error) {
		cmd := exec.Command(bin, append([]string{"--server", f.url, "--insecure-skip-tls-verify", "--token", "unused"}, args...)...)
		cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + filepath.Join(home, "none")}
		if stdin != "" {
			in, err := os.Create(filepath.Join(home, "stdin"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.WriteString(stdin); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Seek(0, 0); err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			cmd.Stdin = in
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}

const manifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: nginx:1
        ports: [{containerPort: 80}]
`

const resourceClaim = `kind: ResourceClaim
apiVersion: resource.k8s.io/v1
metadata: {name: db}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu}}]}}
`

// TestKubectl is a session with the real kubectl. A step that starts with ! has to fail.
func TestKubectl(t *testing.T) {
	f := startWithNode(t)
	k := kubectl(t, f)
	for _, step := range []struct{ stdin, args, want string }{
		{"", "version", "Server Version: v1.37.2+knarr"},
		{"", "api-resources", "horizontalpodautoscalers            hpa          autoscaling/v2                    true         HorizontalPodAutoscaler"},
		{manifest, "apply -f -", "deployment.apps/web created"},
		{manifest, "apply -f -", "deployment.apps/web unchanged"},
		{manifest + "        frog: 1\n", "!apply -f -", `unknown field "spec.template.spec.containers[0].frog"`},
		{manifest, "apply -f - --dry-run=server", "deployment.apps/web unchanged (server dry run)"},
		{manifest, "apply -f - --server-side", "deployment.apps/web serverside-applied"},
		{"", "get deploy web", "web    0/2     0            0"},
		{"", "get deploy -o wide -l app=web", "nginx:1   app=web"},
		{"", "get deploy web -o jsonpath={.spec.replicas}", "2"},
		{"", "get deploy web -o yaml", "kind: Deployment"},
		{"", "describe deploy web", "25% max unavailable, 25% max surge"},
		{"", "scale deploy web --replicas=3", "deployment.apps/web scaled"},
		{"", "set image deploy/web c=nginx:2", "deployment.apps/web image updated"},
		{"", "label deploy web x=y", "deployment.apps/web labeled"},
		{"", "annotate deploy web x=y", "deployment.apps/web annotated"},
		{"", `patch deploy web -p {"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","value":"b"}]}]}}}}`, "deployment.apps/web patched"},
		{"", "get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "nginx:2"},
		{"", "explain deployment.spec.strategy", "The deployment strategy to use to replace existing pods with new ones."},
		{"", "explain deployment.spec.strategy --output plaintext-openapiv2", "The deployment strategy to use to replace existing pods with new ones."},
		{"", "create ns foo", "namespace/foo created"},
		{"", "get ns foo --show-labels", "kubernetes.io/metadata.name=foo"},
		{"", "auth can-i create pods", "yes"},
		{"", "auth whoami", "admin"},
		{"", "get all", "deployment.apps/web"},
		{"", "get pods -o name --field-selector=spec.nodeName=n1", "pod/a"},
		{"", "logs a", "one\ntwo"},
		{"", "exec a -- say hi", "a/c say hi"},
		{"in", "exec -i a -- say", "a/c say IN"},
		{"", "!exec a -- fail", "exit code 42"},
		{"", "wait --for=delete pod/none", ""},
		{"", "!wait --for=condition=Available deploy/web --timeout=1s", "timed out waiting"},
		{"", "!get frogs", `the server doesn't have a resource type "frogs"`},
		{"", "!get pod none", `Error from server (NotFound): pods "none" not found`},
		{"", "create service nodeport s --tcp=80", "service/s created"},
		{"", "get svc s -o wide", "NodePort   10.96."},
		{"", "events", "No events found"},
		{"", "get --raw /readyz?verbose", "[+]ping ok"},
		{"", "cluster-info dump --namespaces default", `"kind": "DaemonSetList"`},
		{"", "get cs", "etcd-0"},
		{"", "get sts", "No resources found"},
		{resourceClaim, "create -f -", "resourceclaim.resource.k8s.io/db created"},
		{"", "get resourceclaims", "db     pending"},
		{"kind: Frog\napiVersion: frogs.example/v1\nmetadata: {name: a}\n", "!apply -f -", `no matches for kind "Frog" in version "frogs.example/v1"`},
		{"kind: StorageClass\napiVersion: storage.k8s.io/v1\nmetadata: {name: a}\nprovisioner: x\n", "apply -f -", "storageclass.storage.k8s.io/a created"},
		{"kind: ConfigMap\napiVersion: v1\nmetadata: {name: pruned, labels: {prune: me}}\n", "apply -f -", "configmap/pruned created"},
		{"kind: ConfigMap\napiVersion: v1\nmetadata: {name: other, labels: {prune: me}}\n", "apply -f - --prune -l prune=me", "configmap/pruned pruned"},
		{"", "delete deploy web", `deployment.apps "web" deleted`},
		{"", "delete pod a --now", `pod "a" deleted`},
	} {
		args, fails := strings.CutPrefix(step.args, "!")
		fields := strings.Split(args, " ")
		if strings.HasPrefix(args, "delete pod") {
			fields = append(fields, "--wait=false") // no agent ends it
		}
		out, err := k(step.stdin, fields...)
		if fails != (err != nil) || !strings.Contains(out, step.want) {
			t.Errorf("kubectl %s: %v\n%s\nwant something with %q", args, err, out, step.want)
		}
	}
}
