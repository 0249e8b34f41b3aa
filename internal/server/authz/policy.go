package authz

import (
	_ "embed"
	"fmt"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
)

//go:embed policy.yaml
var policyYAML string

//go:embed controllers.yaml
var controllersYAML string

// controllerPrefix is what the roles of controllers are called, before their service account's name.
const controllerPrefix = "system:controller:"

// autoUpdate is the annotation with which an administrator keeps a default role as it is ("false").
const autoUpdate = "rbac.authorization.kubernetes.io/autoupdate"

// Policy returns the default roles and bindings, in the order in which they are to be made.
func Policy() ([]api.Object, error) {
	var out []api.Object
	for doc := range strings.SplitSeq(policyYAML+"\n---\n"+controllersYAML, "\n---\n") {
		var head struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			return nil, fmt.Errorf("the built-in policy: %w", err)
		}
		var obj api.Object
		switch head.Kind {
		case "ClusterRole":
			obj = &rbacv1.ClusterRole{}
		case "Role":
			obj = &rbacv1.Role{}
		case "ClusterRoleBinding":
			obj = &rbacv1.ClusterRoleBinding{}
		case "RoleBinding":
			obj = &rbacv1.RoleBinding{}
		default:
			return nil, fmt.Errorf("the built-in policy holds a %q", head.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
			return nil, fmt.Errorf("the built-in policy's %s %s: %w", head.Kind, obj.GetName(), err)
		}
		finish(obj)
		out = append(out, obj)
		if account, ok := strings.CutPrefix(obj.GetName(), controllerPrefix); ok {
			binding := bindController(obj, account)
			finish(binding)
			out = append(out, binding)
		}
	}
	return out, nil
}

// bindController returns the binding of a controller's role to its service account.
func bindController(role api.Object, account string) api.Object {
	meta := metav1.ObjectMeta{Name: role.GetName(), Namespace: role.GetNamespace()}
	ref := rbacv1.RoleRef{Kind: role.GetObjectKind().GroupVersionKind().Kind, Name: role.GetName()}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: account}}
	if role.GetNamespace() != "" {
		return &rbacv1.RoleBinding{TypeMeta: metav1.TypeMeta{Kind: "RoleBinding"}, ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
	}
	return &rbacv1.ClusterRoleBinding{TypeMeta: metav1.TypeMeta{Kind: "ClusterRoleBinding"}, ObjectMeta: meta, RoleRef: ref, Subjects: subjects}
}

// finish fills in what is the same for all and so not written out in the documents.
func finish(obj api.Object) {
	obj.GetObjectKind().SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind(obj.GetObjectKind().GroupVersionKind().Kind))
	labels := map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"}
	for k, v := range obj.GetLabels() {
		labels[k] = v
	}
	obj.SetLabels(labels)
	obj.SetAnnotations(map[string]string{autoUpdate: "true"})
	switch o := obj.(type) {
	case *rbacv1.ClusterRoleBinding:
		o.RoleRef.APIGroup = rbacv1.GroupName
		groups(o.Subjects)
	case *rbacv1.RoleBinding:
		o.RoleRef.APIGroup = rbacv1.GroupName
		groups(o.Subjects)
	}
}

func groups(subjects []rbacv1.Subject) {
	for i := range subjects {
		if subjects[i].Kind != rbacv1.ServiceAccountKind {
			subjects[i].APIGroup = rbacv1.GroupName
		}
	}
}

// nodeRules returns the rules of ClusterRole system:node.
func nodeRules() ([]rbacv1.PolicyRule, error) {
	policy, err := Policy()
	if err != nil {
		return nil, err
	}
	for _, obj := range policy {
		if r, ok := obj.(*rbacv1.ClusterRole); ok && r.Name == "system:node" {
			return r.Rules, nil
		}
	}
	return nil, fmt.Errorf("the built-in policy lacks ClusterRole system:node")
}
