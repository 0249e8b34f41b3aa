package endpointslice

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api/rollout"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
)

func TestServicesGoOverWithOneWrite(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}})
		c.Start(New(c.Client), NewEndpoints(c.Client), replicaset.New(c.Client), ct.Kubelet(c.Client, time.Second, time.Second))
		makeService(c)
		ct.Make(c, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "preview", Annotations: map[string]string{rollout.Preview: "true"}},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		})
		for name, n := range map[string]int32{"old": 2, "new": 3} {
			tmpl := ct.Template("web", name)
			tmpl.Labels["v"] = name
			ct.Make(c, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
				Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: tmpl.Labels}, Template: tmpl}})
		}
		behind := func(service string) (n int) {
			for _, s := range ct.All[*discoveryv1.EndpointSlice](c, ns) {
				if s.Labels[discoveryv1.LabelServiceName] == service {
					n += len(s.Endpoints)
				}
			}
			return n
		}
		for _, tc := range []struct {
			old, new      string
			live, preview int
		}{{"", "", 5, 5}, {"", rollout.PreviewOnly, 2, 3}, {rollout.Off, "", 3, 3}, {"", "", 5, 5}} {
			for name, word := range map[string]string{"old": tc.old, "new": tc.new} {
				ct.Change(c, ns, name, "", func(rs *appsv1.ReplicaSet) { rs.Annotations = map[string]string{rollout.Traffic: word} })
			}
			c.Pass(3 * time.Second)
			if live, preview := behind("web"), behind("preview"); live != tc.live || preview != tc.preview {
				t.Errorf("old %q, new %q: %d pods behind the Service and %d behind that for previews, want %d and %d", tc.old, tc.new, live, preview, tc.live, tc.preview)
			}
			if ep := ct.Get[*corev1.Endpoints](c, ns, "web"); len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != tc.live {
				t.Errorf("old %q, new %q: Endpoints %+v", tc.old, tc.new, ep.Subsets)
			}
		}
	})
}
