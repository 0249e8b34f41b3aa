package manifests

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/knarr-io/knarr/internal/api"
)

const hook = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: guard.static.k8s.io}
webhooks:
- name: guard.example.com
  clientConfig: {url: "https://127.0.0.1:8443/guard"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  sideEffects: None
  admissionReviewVersions: [v1]
`

const policy = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: short.static.k8s.io}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "object.metadata.name.size() < 10"}]
`

const binding = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: everywhere.static.k8s.io}
spec: {policyName: short.static.k8s.io, validationActions: [Deny]}
`

// files makes a directory of files.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		put(t, dir, name, text)
	}
	return dir
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(objs []api.Object) (out []string) {
	for _, o := range objs {
		out = append(out, o.GetName())
	}
	return out
}

func TestRead(t *testing.T) {
	other := strings.Replace(hook, "guard.static", "another.static", 1)
	item := "  " + strings.ReplaceAll(strings.TrimSpace(strings.Replace(hook, "guard.static", "listed.static", 1)), "\n", "\n  ")
	dir := files(t, map[string]string{
		"a.yaml":   "# a comment alone\n---\n" + hook + "---\n" + other,
		"list.yml": "apiVersion: v1\nkind: List\nitems:\n-" + item[1:] + "\n",
		"c.json":   `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfigurationList","items":[{"metadata":{"name":"typed.static.k8s.io"}}]}`,
		"notes.md": "not a manifest", "empty.yaml": "",
	})
	c, err := read(ValidatingWebhooks, dir)
	if err != nil {
		t.Fatal(err)
	}
	objs := c.objects[api.ValidatingWebhookConfigurations]
	if got := strings.Join(names(objs), " "); got != "another.static.k8s.io guard.static.k8s.io listed.static.k8s.io typed.static.k8s.io" {
		t.Errorf("read %s", got)
	}
	w := objs[1].(*admissionregistrationv1.ValidatingWebhookConfiguration).Webhooks[0]
	if w.FailurePolicy == nil || *w.FailurePolicy != admissionregistrationv1.Fail || *w.TimeoutSeconds != 10 || w.NamespaceSelector == nil {
		t.Errorf("without defaults: %+v", w)
	}
	if !strings.HasPrefix(c.hash, "sha256:") {
		t.Errorf("hash %q", c.hash)
	}
	again, err := read(ValidatingWebhooks, dir)
	if err != nil || again.hash != c.hash {
		t.Errorf("read again: %q, %v", again.hash, err)
	}
	if none, err := read(MutatingPolicies, t.TempDir()); err != nil || none.hash != "" {
		t.Errorf("of an empty directory: %q, %v", none.hash, err)
	}
}

func TestRefusals(t *testing.T) {
	replace := func(text, old, with string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in %s", old, text)
		}
		return strings.Replace(text, old, with, 1)
	}
	for _, c := range []struct{ what, plugin, text, want string }{
		{"another plugin's kind", ValidatingPolicies, hook, "unsupported resource type admissionregistration.k8s.io/v1, Kind=ValidatingWebhookConfiguration"},
		{"an older version", ValidatingWebhooks, replace(hook, "k8s.io/v1\n", "k8s.io/v1beta1\n"), "unsupported resource type"},
		{"no suffix", ValidatingWebhooks, replace(hook, "guard.static.k8s.io", "guard"), `must have a name ending with ".static.k8s.io"`},
		{"no name", ValidatingWebhooks, replace(hook, "{name: guard.static.k8s.io}", "{}"), "must have a name"},
		{"twice", ValidatingWebhooks, hook + "---\n" + hook, `duplicate name "guard.static.k8s.io"`},
		{"a Service", ValidatingWebhooks, replace(hook, `{url: "https://127.0.0.1:8443/guard"}`, "{service: {namespace: a, name: b}}"), "use clientConfig.url instead"},
		{"no URL", ValidatingWebhooks, replace(hook, `{url: "https://127.0.0.1:8443/guard"}`, "{}"), "clientConfig.url is required"},
		{"what validation refuses", ValidatingWebhooks, replace(hook, "None", "Some"), "Unsupported value"},
		{"an unknown field", ValidatingWebhooks, replace(hook, "sideEffects", "sideEffect"), `unknown field "webhooks[0].sideEffect"`},
		{"a field twice", ValidatingWebhooks, hook + "kind: ValidatingWebhookConfiguration\n", "already set"},
		{"parameters", ValidatingPolicies, replace(policy, "spec:\n", "spec:\n  paramKind: {apiVersion: v1, kind: ConfigMap}\n"), "spec.paramKind is not supported"},
		{"a bad expression", ValidatingPolicies, replace(policy, "< 10", "<"), "compilation failed"},
		{"a binding alone", ValidatingPolicies, binding, "does not exist in the manifest directory"},
		{"of a policy of the cluster", ValidatingPolicies, replace(policy+"---\n"+binding, "policyName: short.static.k8s.io", "policyName: short"), `must end with ".static.k8s.io"`},
		{"with parameters", ValidatingPolicies, policy + "---\n" + replace(binding, "validationActions", "paramRef: {name: a, parameterNotFoundAction: Deny}, validationActions"), "spec.paramRef is not supported"},
		{"no YAML", ValidatingWebhooks, "a: [", "error loading"},
	} {
		_, err := read(c.plugin, files(t, map[string]string{"a.yaml": c.text}))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
	if _, err := Open(Config{Dirs: map[string]string{MutatingWebhooks: "/does/not/exist"}}); err == nil || !strings.Contains(err.Error(), "the manifests of MutatingAdmissionWebhook") {
		t.Errorf("opened a directory that is not there: %v", err)
	}
}

func TestReload(t *testing.T) {
	dir := files(t, map[string]string{"a.yaml": policy + "---\n" + binding})
	f, err := Open(Config{Dirs: map[string]string{ValidatingPolicies: dir}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	first := f.Of(api.ValidatingAdmissionPolicies)
	before := f.Revision(api.ValidatingAdmissionPolicies)
	if len(first) != 1 || len(f.Of(api.MutatingAdmissionPolicies)) != 0 || f.Revision(api.MutatingAdmissionPolicies) != "" {
		t.Fatalf("opened with %v", names(first))
	}
	if f.look(); f.Of(api.ValidatingAdmissionPolicies)[0] != first[0] {
		t.Error("nothing has changed, and the objects are others")
	}
	put(t, dir, "b.yaml", binding) // twice
	if f.look(); f.Of(api.ValidatingAdmissionPolicies)[0] != first[0] || f.Revision(api.ValidatingAdmissionPolicies) != before || f.failed[ValidatingPolicies] == "" {
		t.Error("a bad file took what was in force out of force")
	}
	put(t, dir, "b.yaml", strings.Replace(binding, "everywhere", "elsewhere", 1))
	if f.look(); len(f.Of(api.ValidatingAdmissionPolicyBindings)) != 2 || f.Revision(api.ValidatingAdmissionPolicies) == before || len(f.failed) != 0 {
		t.Errorf("after the file was mended: %v, %v", names(f.Of(api.ValidatingAdmissionPolicyBindings)), f.failed)
	}
	for _, name := range []string{"a.yaml", "b.yaml"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if f.look(); len(f.Of(api.ValidatingAdmissionPolicies)) != 0 {
		t.Error("the files are gone, and their policies are not")
	}
}

func TestReadConfiguration(t *testing.T) {
	manifests := t.TempDir()
	dir := files(t, map[string]string{"own.yaml": "apiVersion: apiserver.config.k8s.io/v1\nkind: WebhookAdmissionConfiguration\nstaticManifestsDir: " + manifests})
	head := "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
	inline := "- name: ValidatingAdmissionPolicy\n  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: ValidatingAdmissionPolicyConfiguration, staticManifestsDir: " + manifests + "}\n"
	config := filepath.Join(dir, "config.yaml")
	put(t, dir, "config.yaml", head+inline+"- {name: MutatingAdmissionWebhook, path: own.yaml}\n- {name: MutatingAdmissionPolicy}\n")
	got, err := ReadConfiguration(config)
	if err != nil || len(got) != 2 || got[ValidatingPolicies] != manifests || got[MutatingWebhooks] != manifests {
		t.Errorf("read %v, %v", got, err)
	}
	for what, c := range map[string]struct{ text, want string }{
		"another plugin":  {head + "- {name: PodNodeSelector}\n", `plugin "PodNodeSelector" takes no configuration`},
		"twice":           {head + inline + inline, "named twice"},
		"another kind":    {strings.Replace(head, "AdmissionConfiguration", "Thing", 1), "want apiserver.config.k8s.io/v1 AdmissionConfiguration"},
		"an unknown key":  {head + "- {name: MutatingAdmissionPolicy, where: here}\n", `unknown field "where"`},
		"a relative path": {head + strings.Replace(inline, manifests, "here", 1), "must be an absolute file path"},
		"no directory":    {head + strings.Replace(inline, manifests, config, 1), "must be a directory"},
		"nothing there":   {head + strings.Replace(inline, manifests, "/does/not/exist", 1), "unable to read"},
		"a wrong kind":    {head + strings.Replace(inline, "ValidatingAdmissionPolicyC", "WebhookAdmissionC", 1), "want apiserver.config.k8s.io/v1 ValidatingAdmissionPolicyConfiguration"},
		"credentials": {head + "- name: MutatingAdmissionWebhook\n  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: /a}\n",
			"no credentials"},
	} {
		put(t, dir, "config.yaml", c.text)
		if _, err := ReadConfiguration(config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	if _, err := ReadConfiguration(filepath.Join(dir, "none.yaml")); err == nil {
		t.Error("read a file that is not there")
	}
}
