package policy_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
)

// TestPoliciesFromFiles: they judge beside those of the cluster, and policies, too, which those of the cluster may not.
func TestPoliciesFromFiles(t *testing.T) {
	named := func(name, text string) string {
		return strings.NewReplacer("name: short", "name: "+name, "policyName: short", "policyName: "+name, "name: everywhere", "name: "+name).Replace(text)
	}
	dir := t.TempDir()
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(named("fixed.static.k8s.io", short) + "---" + replaced(named("protect.static.k8s.io", short), rules,
		`{resourceRules: [{apiGroups: [admissionregistration.k8s.io], apiVersions: ["*"], resources: ["*"], operations: [DELETE]}]}`,
		"  variables: [{name: size, expression: size(object.data)}]\n", "",
		"variables.size < 2, messageExpression: \"string(variables.size) + ' entries in ' + object.metadata.name\"", "oldObject.metadata.name != 'keep', message: it stays"))
	files, err := manifests.Open(manifests.Config{Dirs: map[string]string{manifests.ValidatingPolicies: dir}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := startWith(t, files)
	ctx, _ := ann()
	_, err = c.Create(ctx, configMap("long", "a", "b", "c", "d"))
	if err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'fixed.static.k8s.io' with binding 'fixed.static.k8s.io' denied request: 2 entries in long") {
		t.Errorf("a policy from a file says %v", err)
	}
	c.add(named("keep", replaced(short, "variables.size < 2", "variables.size < 1")))
	_, err = c.Create(ctx, configMap("one", "a", "b"))
	if err == nil || !strings.Contains(err.Error(), "'keep'") {
		t.Errorf("beside it, a policy of the cluster says %v", err)
	}
	err = c.Delete(ctx, api.ValidatingAdmissionPolicies, api.Key{Name: "keep"}, metav1.DeleteOptions{})
	if err == nil || !strings.Contains(err.Error(), "'protect.static.k8s.io'") {
		t.Errorf("deleting what a policy from a file protects: %v", err)
	}
	put(named("fixed.static.k8s.io", short))
	if files, err = manifests.Open(manifests.Config{Dirs: map[string]string{manifests.ValidatingPolicies: dir}}); err != nil {
		t.Fatal(err)
	}
	c = startWith(t, files)
	c.add(named("locked", replaced(short, rules, `{resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*"], operations: ["*"]}]}`, "variables.size < 2", "false")))
	if err := c.Delete(ctx, api.ValidatingAdmissionPolicies, api.Key{Name: "locked"}, metav1.DeleteOptions{}); err != nil {
		t.Errorf("a policy of the cluster keeps from deleting itself: %v", err)
	}
	clienttest.Create(t, c, configMap("brief", "a", "b"))
}
