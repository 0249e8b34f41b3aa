package aggregated

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
)

var flunders = schema.GroupVersionResource{Group: "wardle.example.com", Version: "v1beta1", Resource: "flunders"}

func flunder(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "wardle.example.com/v1beta1", "kind": "Flunder",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"sea": "north"}}, "spec": map[string]any{"flunderReference": "a"}}}
}

func eventually(t *testing.T, within time.Duration, wrong func() string) {
	t.Helper()
	last := ""
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if last = wrong(); last == "" {
			return
		}
	}
	t.Fatalf("not within %s: %s", within, last)
}

// cluster is Knarr with the example behind it.
type cluster struct {
	*testing.T
	cfg     *rest.Config
	core    kubernetes.Interface
	objects dynamic.Interface
	agg     aggregator.Interface
	wardle  *wardle
}

func start(t *testing.T) *cluster {
	t.Helper()
	kubeconfig := knarr(t)
	c := &cluster{T: t, cfg: clientConfig(t, kubeconfig)}
	c.core, c.objects, c.agg = kubernetes.NewForConfigOrDie(c.cfg), dynamic.NewForConfigOrDie(c.cfg), aggregator.NewForConfigOrDie(c.cfg)
	if _, err := c.core.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "wardle"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() string { // the example reads it at its start
		cm, err := c.core.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "extension-apiserver-authentication", metav1.GetOptions{})
		if err != nil || cm.Data["requestheader-client-ca-file"] == "" {
			return fmt.Sprint(err)
		}
		return ""
	})
	c.wardle = startWardle(t, kubeconfig)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}}
	if _, err := c.core.CoreV1().Services("wardle").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		if _, err := c.agg.ApiregistrationV1().APIServices().Create(t.Context(), &apiregistrationv1.APIService{
			ObjectMeta: metav1.ObjectMeta{Name: version + ".wardle.example.com"},
			Spec: apiregistrationv1.APIServiceSpec{Group: "wardle.example.com", Version: version, GroupPriorityMinimum: 1000, VersionPriority: 15, CABundle: c.wardle.ca,
				Service: &apiregistrationv1.ServiceReference{Namespace: "wardle", Name: "api", Port: &c.wardle.port}},
		}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.becomes(apiregistrationv1.ConditionTrue, "Passed", time.Minute)
	return c
}

// becomes waits until the APIServices have a condition.
func (c *cluster) becomes(status apiregistrationv1.ConditionStatus, reason string, within time.Duration) {
	c.Helper()
	eventually(c.T, within, func() string {
		for _, version := range []string{"v1alpha1", "v1beta1"} {
			s, err := c.agg.ApiregistrationV1().APIServices().Get(c.Context(), version+".wardle.example.com", metav1.GetOptions{})
			if err != nil || len(s.Status.Conditions) != 1 || s.Status.Conditions[0].Status != status || s.Status.Conditions[0].Reason != reason {
				return fmt.Sprintf("%v %+v", err, s.Status.Conditions)
			}
		}
		return ""
	})
}

// TestSampleAPIServer: what an aggregated server serves is used like what Knarr serves itself, and what it no longer answers for stops nothing else.
func TestSampleAPIServer(t *testing.T) {
	c := start(t)
	t.Run("objects", func(t *testing.T) { c.useObjects(t) })
	t.Run("discovery", func(t *testing.T) { c.useDiscovery(t) })
	t.Run("documents", func(t *testing.T) { c.useDocuments(t) })
	t.Run("rights", func(t *testing.T) { c.useRights(t) })
	t.Run("namespaces", func(t *testing.T) { c.deleteNamespace(t) })
	t.Run("gone", func(t *testing.T) { c.goAway(t) })
}

func (c *cluster) useObjects(t *testing.T) {
	ctx := t.Context()
	in := c.objects.Resource(flunders).Namespace("default")
	w, err := in.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := in.Create(ctx, flunder("one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Create(ctx, flunder("one"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("again: %v", err)
	}
	if got, err := in.Patch(ctx, "one", types.MergePatchType, []byte(`{"spec":{"flunderReference":"b"}}`), metav1.PatchOptions{}); err != nil || got.Object["spec"].(map[string]any)["flunderReference"] != "b" {
		t.Errorf("patched: %v %v", got, err)
	}
	if list, err := in.List(ctx, metav1.ListOptions{LabelSelector: "sea=north"}); err != nil || len(list.Items) != 1 {
		t.Errorf("listed: %v %v", list, err)
	}
	if err := in.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		select {
		case e := <-w.ResultChan():
			if e.Type != want {
				t.Errorf("watched %s, want %s", e.Type, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event, want %s", want)
		}
	}
}

func (c *cluster) useDiscovery(t *testing.T) {
	eventually(t, 20*time.Second, func() string {
		_, lists, err := c.core.Discovery().ServerGroupsAndResources() // one request for all
		if err != nil {
			return err.Error()
		}
		for _, l := range lists {
			if l.GroupVersion == "wardle.example.com/v1beta1" && slices.ContainsFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == "flunders" && r.Namespaced && r.Kind == "Flunder" }) {
				return ""
			}
		}
		return fmt.Sprintf("%d lists without flunders", len(lists))
	})
	list, err := c.core.Discovery().ServerResourcesForGroupVersion("wardle.example.com/v1alpha1") // the older form
	if err != nil || len(list.APIResources) < 2 {
		t.Errorf("%v %v", list, err)
	}
	var group metav1.APIGroup
	b, err := c.core.Discovery().RESTClient().Get().AbsPath("/apis/wardle.example.com").DoRaw(t.Context())
	if err != nil || json.Unmarshal(b, &group) != nil || group.PreferredVersion.Version != "v1beta1" || len(group.Versions) != 2 {
		t.Errorf("%s %v", b, err)
	}
}

func (c *cluster) useDocuments(t *testing.T) {
	eventually(t, 30*time.Second, func() string {
		doc, err := c.core.Discovery().OpenAPISchema()
		if err != nil {
			return err.Error()
		}
		var paths []string
		for _, p := range doc.GetPaths().GetPath() {
			paths = append(paths, p.GetName())
		}
		for _, want := range []string{"/apis/wardle.example.com/v1beta1/namespaces/{namespace}/flunders", "/apis/wardle.example.com/v1alpha1/fischers", "/api/v1/pods"} {
			if !slices.Contains(paths, want) {
				return "version 2 lacks " + want
			}
		}
		return ""
	})
	eventually(t, 30*time.Second, func() string {
		paths, err := c.core.Discovery().OpenAPIV3().Paths()
		if err != nil || paths["apis/wardle.example.com/v1beta1"] == nil || paths["api/v1"] == nil {
			return fmt.Sprint(err)
		}
		b, err := paths["apis/wardle.example.com/v1beta1"].Schema("application/json")
		if err != nil || !strings.Contains(string(b), "Flunder") {
			return fmt.Sprintf("%.100s %v", b, err)
		}
		return ""
	})
}

func (c *cluster) useRights(t *testing.T) {
	cfg := rest.CopyConfig(c.cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "jane", Extra: map[string][]string{"scopes": {"a"}}}
	jane := dynamic.NewForConfigOrDie(cfg).Resource(flunders).Namespace("default")
	if _, err := jane.List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `"jane"`) {
		t.Errorf("without a right: %v", err)
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "flunders"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{"wardle.example.com"}, Resources: []string{"flunders"}, Verbs: []string{"list"}}}}
	if _, err := c.core.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "flunders"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "flunders"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}}}
	if _, err := c.core.RbacV1().RoleBindings("default").Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// The example asks Knarr in its turn (SubjectAccessReview), and remembers a refusal for a while.
	eventually(t, 30*time.Second, func() string {
		if _, err := jane.List(t.Context(), metav1.ListOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
	if _, err := jane.Create(t.Context(), flunder("hers"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another right: %v", err)
	}
}

// deleteNamespace: what an aggregated server holds in a namespace goes with it.
func (c *cluster) deleteNamespace(t *testing.T) {
	c.makeNamespace(t, "pond")
	if _, err := c.objects.Resource(flunders).Namespace("pond").Create(t.Context(), flunder("one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.core.CoreV1().Namespaces().Delete(t.Context(), "pond", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.namespaceGoes(t, "pond", 30*time.Second)
	if list, err := c.objects.Resource(flunders).Namespace("pond").List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) > 0 {
		t.Errorf("left: %v %v", list, err)
	}
}

func (c *cluster) makeNamespace(t *testing.T, name string) {
	t.Helper()
	if _, err := c.core.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) namespaceGoes(t *testing.T, name string, within time.Duration) {
	t.Helper()
	eventually(t, within, func() string {
		ns, err := c.core.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return ""
		}
		return fmt.Sprintf("%v %+v", err, ns.Status)
	})
}

// goAway: without the example its own requests fail and nothing else does; namespaces wait for it, and say so.
func (c *cluster) goAway(t *testing.T) {
	c.makeNamespace(t, "lake")
	c.wardle.stop()
	c.becomes(apiregistrationv1.ConditionFalse, "FailedDiscoveryCheck", time.Minute)
	_, err := c.objects.Resource(flunders).Namespace("default").List(t.Context(), metav1.ListOptions{})
	if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != http.StatusServiceUnavailable {
		t.Errorf("its objects: %v", err)
	}
	if _, err := c.core.CoreV1().ConfigMaps("lake").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "map"}}, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if err := c.core.CoreV1().Namespaces().Delete(t.Context(), "lake", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() string {
		ns, err := c.core.CoreV1().Namespaces().Get(t.Context(), "lake", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		for _, condition := range ns.Status.Conditions {
			if condition.Type == corev1.NamespaceDeletionDiscoveryFailure && condition.Status == corev1.ConditionTrue && condition.Reason == "DiscoveryFailed" && strings.Contains(condition.Message, "wardle.example.com/v1beta1") {
				return ""
			}
		}
		return fmt.Sprintf("%+v", ns.Status)
	})
	if _, err := c.core.CoreV1().ConfigMaps("lake").Get(t.Context(), "map", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what Knarr holds in the namespace: %v", err)
	}
	for _, version := range []string{"v1alpha1", "v1beta1"} {
		if err := c.agg.ApiregistrationV1().APIServices().Delete(context.Background(), version+".wardle.example.com", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.namespaceGoes(t, "lake", time.Minute)
}
