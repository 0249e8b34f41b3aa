package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// Every answer names the field, the value and what would be accepted; nothing is half done.
func TestBadObjectsAreRefusedWithReasons(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {containers: [{name: c, image: busybox:1}]}"
	deploy := strings.Replace(web, "name: web, labels", "name: bad, labels", 1)
	with := func(manifest, old, new string) string {
		t.Helper()
		out := strings.Replace(manifest, old, new, 1)
		if out == manifest {
			t.Fatalf("the manifest has no %q", old)
		}
		return out
	}
	session(t, ns, []step{
		{with(pod, "spec:", "spec: {nodeNam: x}\nnospec:"), "!apply -f -", `strict decoding error: unknown field "nospec", unknown field "spec.nodeNam"`},
		{with(pod, "image:", "imgae: x, image:"), "!create -f -", `strict decoding error: unknown field "spec.containers[0].imgae"`},
		{with(pod, "image:", "imgae: x, image:"), "create --validate=warn --dry-run=server -f -", `Warning: unknown field "spec.containers[0].imgae"…pod/bad created (server dry run)`},
		{with(pod, "image:", "imgae: x, image:"), "create --validate=ignore --dry-run=server -f -", "pod/bad created (server dry run)"},
		{with(pod, "image: busybox:1", "image: 5"), "!create -f -", "cannot unmarshal number into Go struct field …image of type string"},
		{with(pod, "name: bad", "name: Bad_Name"), "!create -f -", `The Pod "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of`},
		{with(pod, "name: bad", "name: bad, labels: {a b: c}"), "!create -f -", `metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters`},
		{with(pod, "name: c, ", ""), "!create -f -", "spec.containers[0].name: Required value"},
		{with(pod, "image: busybox:1", "image: busybox:1, ports: [{containerPort: 70000}]"), "!create -f -", "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"},
		{with(pod, "image: busybox:1", "image: busybox:1, resources: {requests: {cpu: 2}, limits: {cpu: 1}}"), "!create -f -", `resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`},
		{with(pod, "image: busybox:1", "image: busybox:1, volumeMounts: [{name: v, mountPath: /v}]"), "!create -f -", `spec.containers[0].volumeMounts[0].name: Not found: "v"`},
		{with(pod, "spec: {", "spec: {restartPolicy: Sometimes, "), "!create -f -", `spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`},
		{with(pod, "spec: {", "spec: {serviceAccountName: nobody, "), "!create -f -", `pods "bad" is forbidden: error looking up service account ` + ns + `/nobody: serviceaccount "nobody" not found`},
		{with(pod, "spec: {", "spec: {priorityClassName: nosuch, "), "!create -f -", `no PriorityClass with name nosuch was found`},
		{with(deploy, "matchLabels: {app: web}", "matchLabels: {app: other}"), "!create -f -", "`selector` does not match template `labels`"},
		{with(deploy, "replicas: 2", "replicas: -1"), "!create -f -", "spec.replicas: Invalid value: -1: must be greater than or equal to 0"},
		{with(pod, "kind: Pod", "kind: Pot"), "!create --validate=false -f -", `no matches for kind "Pot" in version "v1"`},
		{with(pod, "apiVersion: v1", "apiVersion: v9"), "!create --validate=false -f -", `no matches for kind "Pod" in version "v9"`},
		{"apiVersion: v1\nkind: Pod\nmetadata: [", "!create -f -", "error parsing STDIN: error converting YAML to JSON"},
		{"", "!create namespace Upper", `metadata.name: Invalid value: "Upper": a lowercase RFC 1123 label must consist of`},
		{with(pod, "name: bad", "name: bad, namespace: nosuch"), "!create -f - --namespace nosuch", `namespaces "nosuch" not found`},
		{"", "get pods", "No resources found"}, // nothing came of all that

		{"", "create service clusterip svc --tcp=80", "service/svc created"},
		{"", `!patch svc svc -p '{"spec":{"clusterIP":"10.96.200.200"}}'`, `spec.clusterIPs[0]: Invalid value: …: may not change once set`},
		{"", `!patch svc svc -p '{"spec":{"type":"NodePort","ports":[{"port":80,"nodePort":1}]}}'`, `spec.ports[0].nodePort: Invalid value: 1: provided port is not in the valid range. The range of valid ports is 30000-32767`},
		{"", "create deployment dep --image=docker.io/knarr/e2e-web:v1 --replicas=0", "created"},
		{"", `!patch deploy dep -p '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}'`, "`selector` does not match template `labels`"},
		{"", `!patch deploy dep --type=json -p '[{"op":"replace","path":"/spec/selector/matchLabels","value":{"x":"y"}},{"op":"add","path":"/spec/template/metadata/labels/x","value":"y"}]'`, "field is immutable"},
		{"", `!patch deploy dep --type=json -p '[{"op":"test","path":"/spec/replicas","value":7}]'`, "the patch does not fit the object: … testing value /spec/replicas failed"},
		{"", `!patch deploy dep --type=json -p '[{"op":"replace","path":"/nosuch/x","value":7}]'`, "the patch does not fit the object: … doc is missing path: /nosuch/x"},
		{"", "create configmap frozen --from-literal=a=b", "created"},
		{"", `patch configmap frozen -p '{"immutable":true}'`, "patched"},
		{"", `!patch configmap frozen -p '{"data":{"a":"c"}}'`, "data: Forbidden: field is immutable when `immutable` is set"},
		{"", "!create configmap frozen", `configmaps "frozen" already exists`},
		{"", "run fixed --image=docker.io/knarr/e2e-web:v1", "pod/fixed created"},
		{"", `!patch pod fixed -p '{"spec":{"hostname":"x"}}'`, "pod updates may not change fields other than"},
		{"", `!patch pod fixed -p '{"metadata":{"uid":"1"}}'`, "Conflict…UID in precondition: 1, UID in object meta:"},
		{"", `!patch deploy dep --subresource=scale --type=merge -p '{"spec":{"replicas":-1}}'`, "must be greater than or equal to 0"},
	})
}

func TestAPodThatNeverFitsSaysWhy(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod := func(name, spec string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {%s, containers: [{name: c, image: 'docker.io/library/busybox:1', resources: {requests: {cpu: %s}}}]}\n---\n",
			name, spec, map[bool]string{true: "500", false: "1m"}[name == "huge"])
	}
	apply(t, ns, pod("huge", "restartPolicy: Never")+pod("picky", "nodeSelector: {disk: gold}"))
	for name, want := range map[string]string{
		"huge":  "0/1 nodes are available: 1 Insufficient cpu.",
		"picky": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
	} {
		eventually(t, 20*time.Second, name+" says why it waits", func() error {
			var p corev1.Pod
			get(t, &p, "-n", ns, "get", "pod", name)
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == "Unschedulable" && strings.HasPrefix(c.Message, want) && p.Status.Phase == corev1.PodPending {
					return nil
				}
			}
			return fmt.Errorf("its status is %+v", p.Status)
		})
		eventually(t, 20*time.Second, "an event of "+name, func() error {
			if out := kubectl(t, "-n", ns, "events", "--for", "pod/"+name); !strings.Contains(out, "FailedScheduling") || !strings.Contains(out, want) {
				return fmt.Errorf("events are:\n%s", out)
			}
			return nil
		})
	}
}

func TestAnImageThatDoesNotExistSaysSo(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	kubectl(t, "-n", ns, "run", "ghost", "--image=127.0.0.1:1/nosuch/image:v1")
	for _, want := range []string{"ErrImagePull", "ImagePullBackOff"} {
		eventually(t, 40*time.Second, want, func() error {
			if out := kubectl(t, "-n", ns, "get", "pod", "ghost"); !strings.Contains(out, want) {
				return fmt.Errorf("kubectl get says:\n%s", out)
			}
			return nil
		})
	}
	out := kubectl(t, "-n", ns, "describe", "pod", "ghost")
	for _, want := range []string{`Failed to pull image "127.0.0.1:1/nosuch/image:v1"`, "connection refused", "Back-off pulling image"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl describe does not say %q:\n%s", want, out)
		}
	}
}

// rawRequest sends raw bytes to the API and returns its answer.
func rawRequest(t testing.TB, method, path, contentType, token string, body io.Reader) (int, metav1.Status) {
	t.Helper()
	c, host := api(t)
	if token != "" {
		config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(cluster.dataDir, "kubeconfig"))
		if err != nil {
			t.Fatal(err)
		}
		config.CertData, config.KeyData, config.CertFile, config.KeyFile = nil, nil, "", ""
		config.BearerToken = token
		c = httpClient(t, config)
	}
	c.Timeout = 20 * time.Second
	req, err := http.NewRequest(method, host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s metav1.Status
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Errorf("%s %s: the answer is no Status: %v\n%.500s", method, path, err, b)
	}
	return resp.StatusCode, s
}

func TestBadRequestsGetAStatus(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	maps := "/api/v1/namespaces/" + ns + "/configmaps"
	const ok = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"}}`
	big := func(n int) string {
		return `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"k":"` + strings.Repeat("x", n) + `"}}`
	}
	for _, try := range []struct {
		what, method, path, contentType, token, body string
		code                                         int
		reason, message                              string
	}{
		{"a wrong token", "GET", maps, "", "wrong", "", 401, "Unauthorized", "Unauthorized"},
		{"a truncated body", "POST", maps, "application/json", "", ok[:30], 400, "BadRequest", "unexpected end of JSON input"},
		{"no body", "POST", maps, "application/json", "", "", 400, "BadRequest", ""},
		{"a body that is no object", "POST", maps, "application/json", "", "[]", 400, "BadRequest", ""},
		{"another kind", "POST", maps, "application/json", "", strings.Replace(ok, "ConfigMap", "Secret", 1), 400, "BadRequest", ""},
		{"another namespace", "POST", maps, "application/json", "", strings.Replace(ok, `"name"`, `"namespace":"default","name"`, 1), 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		{"another name", "PUT", maps + "/other", "application/json", "", ok, 400, "BadRequest", "the name of the object (m) does not match the name on the URL (other)"},
		{"an unknown content type", "POST", maps, "text/plain", "", ok, 415, "UnsupportedMediaType", ""},
		{"an unknown patch type", "PATCH", maps + "/m", "application/json", "", "{}", 415, "UnsupportedMediaType", ""},
		{"a method that a list does not have", "PUT", maps, "application/json", "", ok, 405, "MethodNotAllowed", ""},
		{"an unknown path", "GET", "/apis/nosuch/v1/things", "", "", "", 404, "NotFound", ""},
		{"an unknown name", "GET", maps + "/nosuch", "", "", "", 404, "NotFound", `configmaps "nosuch" not found`},
		{"a bad selector", "GET", maps + "?labelSelector=a%20in", "", "", "", 400, "BadRequest", ""},
		{"a bad limit", "GET", maps + "?limit=many", "", "", "", 400, "BadRequest", ""},
		{"a bad continue token", "GET", maps + "?continue=xx", "", "", "", 400, "BadRequest", "continue"},
		{"an object that is too large for its kind", "POST", maps, "application/json", "", big(2 << 20), 422, "Invalid", "Too long: may not be more than 1048576 bytes"},
		{"a request of 10 MB", "POST", maps, "application/json", "", big(10 << 20), 413, "RequestEntityTooLarge", ""},
	} {
		code, s := rawRequest(t, try.method, try.path, try.contentType, try.token, strings.NewReader(try.body))
		if code != try.code || s.Code != int32(try.code) || s.Status != metav1.StatusFailure || string(s.Reason) != try.reason || !strings.Contains(s.Message, try.message) {
			t.Errorf("%s: HTTP %d, %+v\nwant %d %s %q", try.what, code, s, try.code, try.reason, try.message)
		}
	}
	if out := kubectl(t, "-n", ns, "get", "configmaps", "-o", "name"); strings.TrimSpace(out) != "configmap/kube-root-ca.crt" {
		t.Errorf("something came of bad requests:\n%s", out)
	}
	// Of two who create the same, one learns that it is there; of two who update the same, one that it changed.
	if code, s := rawRequest(t, "POST", maps, "application/json", "", strings.NewReader(ok)); code != 201 {
		t.Errorf("create: %d %+v", code, s)
	}
	if code, s := rawRequest(t, "POST", maps, "application/json", "", strings.NewReader(ok)); code != 409 || s.Reason != metav1.StatusReasonAlreadyExists {
		t.Errorf("create again: %d %+v", code, s)
	}
	stale := strings.Replace(ok, `"name"`, `"resourceVersion":"1","name"`, 1)
	if code, s := rawRequest(t, "PUT", maps+"/m", "application/json", "", strings.NewReader(stale)); code != 409 || s.Reason != metav1.StatusReasonConflict || !strings.Contains(s.Message, "the object has been modified") {
		t.Errorf("stale update: %d %+v", code, s)
	}
}

// knarrFails runs knarr, which must fail soon, and returns what it says.
func knarrFails(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%s: still running after 20 s:\n%s", strings.Join(args, " "), out)
	} else if err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%s: %v, want exit code 1\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestAServerThatCannotStartSaysWhyAndChangesNothing(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "knarr-") // t.TempDir's are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fresh := filepath.Join(dir, "data")
	binCopy := filepath.Join(dir, "knarr") // has no libexec beside it
	if err := sh("cp "+cluster.bin+" "+binCopy, "chmod 755 "+dir); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("long", 25))
	server := func(args ...string) []string { return append([]string{cluster.bin, "server"}, args...) }
	for _, try := range []struct {
		what string
		args []string
		want []string
	}{
		{"a second server on the same data directory", server("--data-dir", cluster.dataDir, "--listen", "127.0.0.1:26443"),
			[]string{"another knarr server is running on " + cluster.dataDir, fmt.Sprintf("process %d", serverPID()), "--data-dir"}},
		{"a taken port", server("--data-dir", fresh, "--listen", "0.0.0.0:16443"), []string{"port 16443 is taken", "--listen"}},
		{"a taken port, in the background", []string{cluster.bin, "up", "--data-dir", fresh, "--", "--listen", "0.0.0.0:16443"}, []string{"port 16443 is taken", "knarr.log"}},
		{"executables that are missing", []string{binCopy, "server", "--data-dir", fresh, "--listen", "127.0.0.1:26443"}, []string{"runc is not in " + dir + "/libexec", "--libexec"}},
		{"another instance with the same addresses", server("--data-dir", filepath.Join(dir, "later"), "--listen", "127.0.0.1:26443", "--cri-endpoint", "unix:///nosuch.sock"),
			[]string{"another instance of Knarr has the cluster DNS address 10.96.0.10", "service CIDR"}},
		{"an unknown flag", server("--nosuch"), []string{"unknown flag: --nosuch"}},
		{"a bad address to listen on", server("--data-dir", fresh, "--listen", "here"), []string{"--listen", `"here"`, "0.0.0.0:6443"}},
		{"an address of another machine", server("--data-dir", fresh, "--listen", "198.51.100.1:26443"), []string{"198.51.100.1:26443"}},
		{"a bad node address", server("--data-dir", fresh, "--node-ip", "nowhere"), []string{"--node-ip", `"nowhere"`}},
		{"ranges that overlap", server("--data-dir", fresh, "--service-cidr", "10.244.0.0/16"), []string{"--cluster-cidr", "--service-cidr", "overlap"}},
		{"a bad range", server("--data-dir", fresh, "--cluster-cidr", "10.244.0.0/30"), []string{"--cluster-cidr", `"10.244.0.0/30"`, "want an IPv4 range"}},
		{"a DNS address outside of the range", server("--data-dir", fresh, "--cluster-dns", "9.9.9.9"), []string{"--cluster-dns", `"9.9.9.9"`, "10.96.0.0/16"}},
		{"a bad level", server("--data-dir", fresh, "--log-level", "loud"), []string{"--log-level", `"loud"`, "debug, info, warn or error"}},
		{"a configuration file that is not there", server("--config", "/nosuch.yaml"), []string{"--config", "/nosuch.yaml"}},
		{"a configuration file that is no YAML", server("--config", file("broken.yaml", "a: [")), []string{"broken.yaml"}},
		{"an unknown setting", server("--config", file("unknown.yaml", "colour: red")), []string{"unknown.yaml", `no setting "colour"`, "--help"}},
		{"a setting with a bad value", server("--config", file("value.yaml", "max-pods: lots")), []string{"value.yaml", "max-pods"}},
		{"a data directory that is a file", server("--data-dir", file("plain", ""), "--listen", "127.0.0.1:26443"), []string{"data directory", "not a directory"}},
		{"a data directory with too long a path", server("--data-dir", long, "--listen", "127.0.0.1:26443"), []string{"may have 107", "choose a shorter data directory"}},
		{"not being root", []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binCopy, "server", "--data-dir", fresh}, []string{"needs root", "--no-agent"}},
		{"going down without being root", []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binCopy, "down", "--data-dir", cluster.dataDir}, []string{"needs root"}},
		{"an unknown command", []string{cluster.bin, "frobnicate"}, []string{`unknown command "frobnicate"`}},
		{"an image that is no image", []string{cluster.bin, "image", "import", "--data-dir", cluster.dataDir, file("no.tar", "x")}, []string{"no.tar"}},
	} {
		out := knarrFails(t, try.args...)
		for _, want := range try.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: the answer does not say %q:\n%s", try.what, want, out)
			}
		}
		if n := bytes.Count([]byte(out), []byte("goroutine ")); n > 0 {
			t.Errorf("%s: a panic:\n%s", try.what, out)
		}
		if _, err := os.Stat(filepath.Join(fresh, "etcd")); err == nil {
			t.Errorf("%s: it began a cluster all the same", try.what)
		}
		if pid := serverOf(dir); pid != 0 {
			t.Errorf("%s: process %d still runs", try.what, pid)
		}
	}
	if out, err := exec.Command(cluster.bin, "down", "--data-dir", filepath.Join(dir, "later"), "--delete-data").CombinedOutput(); err != nil {
		t.Errorf("knarr down: %v\n%s", err, out)
	}
	if out := kubectl(t, "get", "--raw", "/readyz"); out != "ok" {
		t.Errorf("the running cluster says %s", out)
	}
}

// serverOf returns the process that has dataDir in its arguments, or 0.
func serverOf(dataDir string) int {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dataDir)) {
			var pid int
			_, _ = fmt.Sscanf(f, "/proc/%d/", &pid)
			return pid
		}
	}
	return 0
}
