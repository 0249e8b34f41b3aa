package rootca

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func TestPublishedAndRestored(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client, []byte("PEM")))
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		c.Settle()
		for _, ns := range []string{"default", "a"} {
			if got := ct.Get[*corev1.ConfigMap](c, ns, configMapName).Data; len(got) != 1 || got[bundleKey] != "PEM" {
				t.Errorf("in %s: %v", ns, got)
			}
		}
		for name, edit := range map[string]func(cm *corev1.ConfigMap){
			"changed":    func(cm *corev1.ConfigMap) { cm.Data[bundleKey] = "other" },
			"added to":   func(cm *corev1.ConfigMap) { cm.Data["more"] = "x" },
			"emptied":    func(cm *corev1.ConfigMap) { cm.Data = nil },
			"binary":     func(cm *corev1.ConfigMap) { cm.BinaryData = map[string][]byte{"b": {1}} },
			"described":  func(cm *corev1.ConfigMap) { cm.Annotations = nil },
			"not at all": func(cm *corev1.ConfigMap) {},
		} {
			ct.Change(c, "a", configMapName, "", edit)
			c.Settle()
			cm := ct.Get[*corev1.ConfigMap](c, "a", configMapName)
			if plan("a", "PEM", cm) != nil {
				t.Errorf("%s: not put right: %+v", name, cm)
			}
		}
		ct.Change(c, "a", configMapName, "", func(cm *corev1.ConfigMap) { cm.Labels = map[string]string{"mine": "1"} })
		c.Settle()
		if ct.Get[*corev1.ConfigMap](c, "a", configMapName).Labels["mine"] != "1" {
			t.Error("a label that somebody added is gone")
		}
		ct.Delete[*corev1.ConfigMap](c, "a", configMapName, metav1.DeleteOptions{})
		c.Settle()
		ct.Get[*corev1.ConfigMap](c, "a", configMapName)
	})
}

func TestNewBundleReachesOldNamespaces(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := c.Start(New(c.Client, []byte("old")))
		c.Settle()
		stop()
		c.Start(New(c.Client, []byte("new")))
		c.Settle()
		if got := ct.Get[*corev1.ConfigMap](c, "default", configMapName).Data[bundleKey]; got != "new" {
			t.Errorf("bundle %q after the authority changed, want new", got)
		}
	})
}
