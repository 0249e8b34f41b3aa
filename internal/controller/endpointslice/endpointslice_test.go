package endpointslice

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
)

const ns = metav1.NamespaceDefault

func makeService(c *ct.Cluster) {
	ct.Make(c, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	})
}

// ready counts the ready endpoints of all slices.
func ready(c *ct.Cluster) (n int) {
	for _, s := range ct.All[*discoveryv1.EndpointSlice](c, ns) {
		for _, ep := range s.Endpoints {
			if *ep.Conditions.Ready {
				n++
			}
		}
	}
	return n
}

func TestFollowsPods(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}})
		c.Start(New(c.Client), NewEndpoints(c.Client), replicaset.New(c.Client), ct.Kubelet(c.Client, time.Second, 5*time.Second))
		makeService(c)
		n := int32(130)
		ct.Make(c, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
			Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: ct.Selector("web"), Template: ct.Template("web", "img")}})
		c.Pass(3 * time.Second)
		if got := ready(c); got != 130 {
			t.Fatalf("%d ready endpoints, want 130", got)
		}
		slices := ct.All[*discoveryv1.EndpointSlice](c, ns)
		if len(slices) > 3 || *slices[0].Endpoints[0].Zone != "z1" {
			t.Errorf("%d slices, zone %v", len(slices), slices[0].Endpoints[0].Zone)
		}
		if ep := ct.Get[*corev1.Endpoints](c, ns, "web"); len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != 130 {
			t.Errorf("Endpoints has %d subsets", len(ep.Subsets))
		}

		one := ct.All[*corev1.Pod](c, ns)[0]
		ct.Change(c, ns, one.Name, "status", func(p *corev1.Pod) { p.Status.Conditions = nil })
		c.Settle()
		if got := ready(c); got != 129 {
			t.Errorf("right after a pod became not ready: %d ready endpoints, want 129", got)
		}
		ct.Delete[*corev1.Pod](c, ns, one.Name, metav1.DeleteOptions{})
		c.Pass(2 * time.Second)
		if got := ready(c); got != 130 {
			t.Errorf("with the replacement: %d ready endpoints, want 130", got)
		}
		ct.Change(c, "", "node", "", func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = "z2" })
		c.Pass(time.Second)
		if z := *ct.All[*discoveryv1.EndpointSlice](c, ns)[0].Endpoints[0].Zone; z != "z2" {
			t.Errorf("zone %s after the node moved, want z2", z)
		}

		ct.Delete[*corev1.Service](c, ns, "web", metav1.DeleteOptions{})
		c.Pass(time.Second)
		if !ct.Gone[*corev1.Endpoints](c, ns, "web") {
			t.Error("the Endpoints outlived the Service")
		}
	})
}

// Nothing but its end tells of a pod that is deleted without grace.
func TestPodDeletedWithoutGrace(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}})
		c.Start(New(c.Client))
		makeService(c)
		for i := range 2 {
			p := pod(i, nil)
			p.UID = ""
			ct.Make(c, &corev1.Pod{ObjectMeta: p.ObjectMeta, Spec: corev1.PodSpec{NodeName: "node", Containers: ct.Template("web", "img").Spec.Containers}})
			ct.Change(c, ns, p.Name, "status", func(q *corev1.Pod) { ct.MakeReady(q, p.Status.PodIP, time.Now()) })
		}
		c.Pass(time.Second)
		if got := ready(c); got != 2 {
			t.Fatalf("%d ready endpoints, want 2", got)
		}
		zero := int64(0)
		ct.Delete[*corev1.Pod](c, ns, ct.All[*corev1.Pod](c, ns)[0].Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		c.Pass(time.Second)
		if got := ready(c); got != 1 {
			t.Errorf("%d ready endpoints, want 1", got)
		}
	})
}

func TestBurstsAreWrittenTogether(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}})
		c.Start(New(c.Client))
		makeService(c)
		w, err := clienttest.Watch[*discoveryv1.EndpointSlice](context.Background(), c.Client, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		c.Settle()
		tmpl := ct.Template("web", "img")
		for i := range 90 { // one a millisecond
			p := pod(i, nil)
			p.UID = ""
			ct.Make(c, &corev1.Pod{ObjectMeta: p.ObjectMeta, Spec: corev1.PodSpec{NodeName: "node", Containers: tmpl.Spec.Containers}})
			ct.Change(c, ns, p.Name, "status", func(q *corev1.Pod) { ct.MakeReady(q, p.Status.PodIP, time.Now()) })
			c.Pass(time.Millisecond)
		}
		c.Pass(time.Second)
		if got := ready(c); got != 90 {
			t.Fatalf("%d ready endpoints, want 90", got)
		}
		events := 0
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			batch, err := w.Next(ctx)
			cancel()
			if err != nil {
				break
			}
			events += len(batch.Events)
		}
		if events > 8 {
			t.Errorf("90 pods made %d events of slices", events)
		}
	})
}

func TestLeavesOthersAlone(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), NewEndpoints(c.Client))
		ct.Make(c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "ext"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
		own := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: "mine", Labels: map[string]string{discoveryv1.LabelServiceName: "ext"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		}
		made := ct.Make(c, own)
		ct.Make(c, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "early"}, Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Port: 80}}}}})
		c.Pass(time.Minute)
		if s := ct.Get[*discoveryv1.EndpointSlice](c, ns, "mine"); s.ResourceVersion != made.ResourceVersion || len(ct.All[*discoveryv1.EndpointSlice](c, ns)) != 1 {
			t.Error("slices of a Service without a selector were touched")
		}
		if ct.Gone[*corev1.Endpoints](c, ns, "early") {
			t.Error("Endpoints that came before their Service were deleted")
		}
	})
}
