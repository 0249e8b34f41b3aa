package frontproxy

import (
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/pki"
)

var headers = Headers{User: "X-Remote-User", UID: "X-Remote-Uid", Group: "X-Remote-Group", ExtraPrefix: "X-Remote-Extra-"}

func trustOf(t *testing.T) Trust {
	t.Helper()
	p, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	return Trust{ClientCA: p.CAPEM(), FrontProxyCA: p.FrontProxyCAPEM(), Names: []string{pki.FrontProxyName}, Headers: headers}
}

func TestPublishedAndRestored(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		trust := trustOf(t)
		ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
		c.Start(New(c.Client, trust))
		c.Settle()
		want := map[string]string{
			"client-ca-file": string(trust.ClientCA), "requestheader-client-ca-file": string(trust.FrontProxyCA),
			"requestheader-allowed-names": `["front-proxy-client"]`, "requestheader-username-headers": `["X-Remote-User"]`,
			"requestheader-uid-headers": `["X-Remote-Uid"]`, "requestheader-group-headers": `["X-Remote-Group"]`,
			"requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
		}
		check := func(when string) {
			t.Helper()
			c.Settle()
			if got := ct.Get[*corev1.ConfigMap](c, "kube-system", configMapName).Data; !maps.Equal(got, want) {
				t.Errorf("%s: %v", when, got)
			}
		}
		check("at first")
		for when, edit := range map[string]func(cm *corev1.ConfigMap){
			"emptied":  func(cm *corev1.ConfigMap) { cm.Data = nil },
			"one lost": func(cm *corev1.ConfigMap) { delete(cm.Data, "client-ca-file") },
			"damaged": func(cm *corev1.ConfigMap) {
				cm.Data["client-ca-file"], cm.Data["requestheader-allowed-names"] = "?", "?"
			},
			"added to":   func(cm *corev1.ConfigMap) { cm.Data["more"] = "x" },
			"not at all": func(*corev1.ConfigMap) {},
		} {
			ct.Change(c, "kube-system", configMapName, "", edit)
			check(when)
		}
		ct.Delete[*corev1.ConfigMap](c, "kube-system", configMapName, metav1.DeleteOptions{})
		check("deleted")
	})
}

func TestServersAddTheirAuthorities(t *testing.T) {
	a, b := trustOf(t), trustOf(t)
	b.Names = []string{"another-proxy"}
	first := plan(nil, a, time.Now())
	both := plan(first, b, time.Now())
	if both == nil || both.Data[frontProxyCAKey] != string(a.FrontProxyCA)+string(b.FrontProxyCA) || both.Data["requestheader-allowed-names"] != `["front-proxy-client","another-proxy"]` {
		t.Fatalf("two servers: %+v", both)
	}
	for _, again := range []Trust{a, b} {
		if cm := plan(both, again, time.Now()); cm != nil {
			t.Errorf("a server is not content with what it and another published: %v", cm.Data)
		}
	}
	later := plan(both, a, time.Now().AddDate(20, 0, 0))
	if later == nil || strings.Contains(later.Data[frontProxyCAKey], "CERTIFICATE") {
		t.Errorf("an authority that has expired stays: %+v", later)
	}
	if cm := plan(nil, Trust{ClientCA: a.ClientCA}, time.Now()); len(cm.Data) != 1 {
		t.Errorf("without a front proxy: %v", cm.Data)
	}
}
