package resourcequota

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

func list(kv ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return out
}

func pod(name string, requests corev1.ResourceList) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: requests}}}}}
}

func TestStatusFollowsTheNamespace(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		t := c.T
		c.Start(New(c.Client))
		want := func(step string, expect corev1.ResourceList) {
			t.Helper()
			synctest.Wait()
			q, err := client.Get[*corev1.ResourceQuota](t.Context(), c.Client, api.Key{Namespace: "default", Name: "q"})
			if err != nil {
				t.Fatal(err)
			}
			for name, e := range expect {
				if got := q.Status.Used[name]; got.Cmp(e) != 0 {
					t.Errorf("%s: used %s is %s, want %s", step, name, got.String(), e.String())
				}
			}
			if len(q.Status.Used) != len(q.Spec.Hard) || len(q.Status.Hard) != len(q.Spec.Hard) {
				t.Errorf("%s: status %+v", step, q.Status)
			}
		}
		clienttest.Create(t, c.Client, pod("before", list("cpu", "500m")))
		clienttest.Create(t, c.Client, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"},
			Spec: corev1.ResourceQuotaSpec{Hard: list("pods", "10", "requests.cpu", "4", "count/configmaps", "5", "services.nodeports", "2")}})
		want("new quota", list("pods", "1", "requests.cpu", "500m", "count/configmaps", "0", "services.nodeports", "0"))

		clienttest.Create(t, c.Client, pod("second", list("cpu", "1")))
		clienttest.Create(t, c.Client, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}})
		clienttest.Create(t, c.Client, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}})
		want("more objects", list("pods", "2", "requests.cpu", "1500m", "count/configmaps", "1", "services.nodeports", "1"))

		if _, err := client.Mutate(t.Context(), c.Client, api.Key{Namespace: "default", Name: "second"}, "status", func(p *corev1.Pod) bool {
			p.Status.Phase = corev1.PodSucceeded
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want("a pod ended", list("pods", "1", "requests.cpu", "500m"))

		zero := int64(0)
		if err := client.Delete[*corev1.Pod](t.Context(), c.Client, api.Key{Namespace: "default", Name: "before"}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		want("a pod went", list("pods", "0", "requests.cpu", "0"))

		if _, err := client.Mutate(t.Context(), c.Client, api.Key{Namespace: "default", Name: "q"}, "", func(q *corev1.ResourceQuota) bool {
			q.Spec.Hard = list("secrets", "1", "count/pods", "3")
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want("the quota changed", list("secrets", "0", "count/pods", "1"))

		// A charge that nothing came of is given back.
		if _, err := client.Mutate(t.Context(), c.Client, api.Key{Namespace: "default", Name: "q"}, "status", func(q *corev1.ResourceQuota) bool {
			q.Status.Used["secrets"] = resource.MustParse("1")
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want("charged", list("secrets", "1"))
		time.Sleep(again) // in virtual time
		want("given back", list("secrets", "0"))
	})
}
