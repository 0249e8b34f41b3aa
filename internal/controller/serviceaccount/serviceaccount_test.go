package serviceaccount

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func TestEveryNamespaceHasADefaultAccount(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		c.Settle()
		for _, ns := range []string{"default", "a"} {
			ct.Get[*corev1.ServiceAccount](c, ns, "default")
		}
		first := ct.Change(c, "a", "default", "", func(sa *corev1.ServiceAccount) {
			sa.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
		})
		c.Settle()
		if sa := ct.Get[*corev1.ServiceAccount](c, "a", "default"); sa.ResourceVersion != first.ResourceVersion {
			t.Error("an account that was edited is changed back")
		}
		ct.Delete[*corev1.ServiceAccount](c, "a", "default", metav1.DeleteOptions{})
		c.Settle()
		if sa := ct.Get[*corev1.ServiceAccount](c, "a", "default"); sa.UID == first.UID {
			t.Error("the account was not deleted")
		}
	})
}

func TestNamespaceThatGoesGetsNone(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
		ct.Delete[*corev1.Namespace](c, "", "a", metav1.DeleteOptions{})
		c.Start(New(c.Client))
		c.Settle()
		if !ct.Gone[*corev1.ServiceAccount](c, "a", "default") {
			t.Error("a namespace that is being deleted got an account")
		}
	})
}
