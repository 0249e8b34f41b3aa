package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// shop is a client for a cluster with a namespace shop: cart and a stranger on n1, a database of two pods, a logger on the network of n1.
func shop(t *testing.T) client.Client {
	t.Helper()
	c := clienttest.New(t)
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	clienttest.Create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24"}}})
	if _, err := client.Mutate(t.Context(), c, api.Key{Name: "n1"}, "status", func(n *corev1.Node) bool {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct{ name, node, ip string }{{"cart-1", "n1", "10.244.1.5"}, {"stranger", "n1", "10.244.1.6"}, {"db-0", "n1", "10.244.1.7"}, {"db-1", "n2", "10.244.2.7"},
		{"log", "n1", "192.0.2.1"}, {"new", "n1", ""}} {
		app, _, _ := strings.Cut(p.name, "-")
		pod := clienttest.Create(t, c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: p.name, Labels: map[string]string{"app": app}},
			Spec: corev1.PodSpec{NodeName: p.node, HostNetwork: app == "log", Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{Name: "sql", ContainerPort: 5432}}}}}})
		if p.ip == "" {
			continue
		}
		if _, err := client.Mutate(t.Context(), c, api.KeyOf(pod), "status", func(o *corev1.Pod) bool {
			o.Status.PodIP, o.Status.PodIPs = p.ip, []corev1.PodIP{{IP: p.ip}}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{`
metadata: {namespace: shop, name: nothing}
spec: {podSelector: {matchLabels: {app: db}}}`, `
metadata: {namespace: shop, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{ipBlock: {cidr: 198.51.100.0/24}}]
  - from: [{podSelector: {matchLabels: {app: cart}}}]
    ports: [{port: sql}]`, `
metadata: {namespace: shop, name: out}
spec: {podSelector: {matchLabels: {app: stranger}}, policyTypes: [Egress]}`} {
		p := &networkingv1.NetworkPolicy{}
		if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		clienttest.Create(t, c, p)
	}
	return c
}

func TestWhyConnect(t *testing.T) {
	c := shop(t)
	const rule2 = `rule 2 for ingress: {"ports":[{"protocol":"TCP","port":"sql"}],"from":[{"podSelector":{"matchLabels":{"app":"cart"}}}]}`
	for _, tc := range []struct{ from, to, want string }{
		{"cart-1", "db-1:sql", `shop/cart-1 (10.244.1.5 on n1) to shop/db-1 (10.244.2.7 on n2), port 5432/TCP
egress of shop/cart-1: no policy is about it
ingress of shop/db-1: a policy lets it pass
shop/db: ` + rule2 + `
shop/nothing: it has no rules for ingress
passes
`},
		{"cart-1", "pod/db-0:53/udp", `shop/cart-1 (10.244.1.5 on n1) to shop/db-0 (10.244.1.7 on n1), port 53/UDP
egress of shop/cart-1: no policy is about it
ingress of shop/db-0: no policy lets it pass
shop/db: none of its 2 rules for ingress
shop/nothing: it has no rules for ingress
is stopped
`},
		{"shop/stranger", "cart-1:80", `shop/stranger (10.244.1.6 on n1) to shop/cart-1 (10.244.1.5 on n1), port 80/TCP
egress of shop/stranger: no policy lets it pass
shop/out: it has no rules for egress
ingress of shop/cart-1: no policy is about it
is stopped
`},
		{"198.51.100.9", "db-0:1", `198.51.100.9 to shop/db-0 (10.244.1.7 on n1), port 1/TCP
ingress of shop/db-0: a policy lets it pass
shop/db: rule 1 for ingress: {"from":[{"ipBlock":{"cidr":"198.51.100.0/24"}}]}
shop/nothing: it has no rules for ingress
passes
`},
		{"log", "db-0:1", `shop/log, on the network of its node (192.0.2.1 on n1) to shop/db-0 (10.244.1.7 on n1), port 1/TCP
passes: traffic between a pod and its own node is always allowed
`},
		{"cart-1", "1.1.1.1:443", `shop/cart-1 (10.244.1.5 on n1) to 1.1.1.1, port 443/TCP
egress of shop/cart-1: no policy is about it
passes
`},
	} {
		var out bytes.Buffer
		err := whyConnect(t.Context(), &out, finder{c, "shop"}, tc.from, tc.to)
		if squeeze(out.String()) != squeeze(tc.want) {
			t.Errorf("%s to %s: got\n%s\nwant\n%s", tc.from, tc.to, out.String(), tc.want)
		}
		if stopped := errors.Is(err, ExitCode(1)); stopped != strings.Contains(tc.want, "is stopped") || err != nil && !stopped {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		}
	}
	for to, want := range map[string]string{"db-0": "has no port", "db-0:web": "neither a number", "none:80": "neither a pod nor a Service shop/none", "db-0:80/icmp": "want tcp", "new:80": "has no address"} {
		if err := whyConnect(t.Context(), &bytes.Buffer{}, finder{c, "shop"}, "cart-1", to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("to %s: %v, want %q in it", to, err, want)
		}
	}
}

func TestWhyConnectToAServiceAsksOfEachEndpoint(t *testing.T) {
	c := shop(t)
	clienttest.Create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.77", Ports: []corev1.ServicePort{{Name: "main", Port: 80}}}})
	if err := whyConnect(t.Context(), &bytes.Buffer{}, finder{c, "shop"}, "cart-1", "db:80"); err == nil || !strings.Contains(err.Error(), "no ready endpoint") {
		t.Errorf("without endpoints: %v", err)
	}
	name, port, ready := "main", int32(5432), true
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-x", Labels: map[string]string{discoveryv1.LabelServiceName: "db"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}}}
	for _, pod := range []string{"db-1", "db-0"} {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.244.9.9"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod}})
	}
	clienttest.Create(t, c, slice)
	for _, to := range []string{"db:80", "service/shop/db:main"} {
		var out bytes.Buffer
		if err := whyConnect(t.Context(), &out, finder{c, "shop"}, "cart-1", to); err != nil || strings.Count(out.String(), "rule 2 for ingress") != 2 ||
			!strings.HasSuffix(out.String(), "Of 2 endpoints 2 can be reached.\n") {
			t.Errorf("%s: %v\n%s", to, err, out.String())
		}
	}
	var out bytes.Buffer
	if err := whyConnect(t.Context(), &out, finder{c, "shop"}, "stranger", "db:main"); !errors.Is(err, ExitCode(1)) || !strings.Contains(out.String(), "Of 2 endpoints 0") {
		t.Errorf("a stranger: %v\n%s", err, out.String())
	}
}
