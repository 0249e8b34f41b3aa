package nodeipam

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func TestEachNodeItsOwnBlock(t *testing.T) {
	c := clienttest.New(t)
	rec := New(c, netip.MustParsePrefix("10.244.0.0/22")).Reconciler
	add := func(name string) (string, error) {
		clienttest.Create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
		_, err := rec.Reconcile(t.Context(), api.Key{Name: name})
		n, _ := client.Get[*corev1.Node](t.Context(), c, api.Key{Name: name})
		return n.Spec.PodCIDR, err
	}
	for i, want := range []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"} {
		if got, err := add(string(rune('a' + i))); got != want || err != nil {
			t.Errorf("node %d: %s, %v; want %s", i, got, err, want)
		}
	}
	if got, err := add("e"); got != "" || err == nil {
		t.Errorf("with every block taken: %s, %v", got, err)
	}
	if err := client.Delete[*corev1.Node](t.Context(), c, api.Key{Name: "b"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Reconcile(t.Context(), api.Key{Name: "e"}); err != nil {
		t.Fatal(err)
	}
	if n, _ := client.Get[*corev1.Node](t.Context(), c, api.Key{Name: "e"}); n.Spec.PodCIDR != "10.244.1.0/24" {
		t.Errorf("the freed block was not given out again: %s", n.Spec.PodCIDR)
	}
}

func TestFreeBlock(t *testing.T) {
	for _, c := range []struct {
		name, cluster string
		taken         []string
		want          string // empty for none
	}{
		{"the first of an empty cluster", "10.244.0.0/16", nil, "10.244.0.0/24"},
		{"a gap", "10.244.0.0/16", []string{"10.244.0.0/24", "10.244.2.0/24"}, "10.244.1.0/24"},
		{"beside a smaller block", "10.244.0.0/16", []string{"10.244.0.128/25"}, "10.244.1.0/24"},
		{"beside a larger block", "10.244.0.0/16", []string{"10.244.0.0/22"}, "10.244.4.0/24"},
		{"blocks elsewhere do not matter", "10.244.0.0/16", []string{"192.0.2.0/24", "fd00::/64"}, "10.244.0.0/24"},
		{"none left", "10.244.0.0/23", []string{"10.244.0.0/24", "10.244.1.0/24"}, ""},
		{"all of it taken at once", "10.244.0.0/16", []string{"10.0.0.0/8"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var taken []netip.Prefix
			for _, p := range c.taken {
				taken = append(taken, netip.MustParsePrefix(p))
			}
			got, ok := free(netip.MustParsePrefix(c.cluster), taken)
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Errorf("got %v, %v; want %q", got, ok, c.want)
			}
		})
	}
}
