package endpointslice

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// shown is what all slices say, in a form to compare.
func shown(c *ct.Cluster) (out []string) {
	for _, s := range ct.All[*discoveryv1.EndpointSlice](c, ns) {
		for _, e := range s.Endpoints {
			for _, p := range s.Ports {
				out = append(out, fmt.Sprint(s.AddressType, " ", e.Addresses[0], " ", *p.Port, " ", *e.Conditions.Ready))
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestMirrorsEndpointsOfServicesWithoutSelector(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(NewMirror(c.Client), NewEndpoints(c.Client), New(c.Client))
		ct.Make(c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 5432}}}})
		ct.Make(c, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db"}, Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3"}, {IP: "fd00::3"}}, NotReadyAddresses: []corev1.EndpointAddress{{IP: "10.1.2.4"}},
			Ports: []corev1.EndpointPort{{Port: 5432}}}}})
		ct.Make(c, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "of-no-service"}, Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "10.9.9.9"}}, Ports: []corev1.EndpointPort{{Port: 1}}}}})
		check := func(when string, want ...string) {
			t.Helper()
			c.Pass(time.Second)
			if got := shown(c); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		change := func(f func(*corev1.Endpoints)) {
			t.Helper()
			if _, err := client.Mutate(context.Background(), c.Client, api.Key{Namespace: ns, Name: "db"}, "", func(e *corev1.Endpoints) bool { f(e); return true }); err != nil {
				t.Fatal(err)
			}
		}
		check("made", "IPv4 10.1.2.3 5432 true", "IPv4 10.1.2.4 5432 false", "IPv6 fd00::3 5432 true")
		ipv4 := func() types.UID { // names are drawn, so their order says nothing
			for _, s := range ct.All[*discoveryv1.EndpointSlice](c, ns) {
				if s.AddressType == discoveryv1.AddressTypeIPv4 {
					return s.UID
				}
			}
			return ""
		}
		uid := ipv4()
		change(func(e *corev1.Endpoints) {
			e.Subsets[0].Addresses, e.Subsets[0].NotReadyAddresses = []corev1.EndpointAddress{{IP: "10.1.2.5"}}, nil
		})
		check("changed", "IPv4 10.1.2.5 5432 true")
		if now := ipv4(); now != uid {
			t.Error("a slice was replaced that could be changed")
		}
		change(func(e *corev1.Endpoints) { e.Labels = map[string]string{discoveryv1.LabelSkipMirror: "true"} })
		check("not to be mirrored")
		change(func(e *corev1.Endpoints) { e.Labels = nil })
		check("mirrored again", "IPv4 10.1.2.5 5432 true")
		if err := client.Delete[*corev1.Endpoints](context.Background(), c.Client, api.Key{Namespace: ns, Name: "db"}, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check("deleted")
	})
}
