package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func TestPoliciesAreListedWithWhatNodesHaveOfThem(t *testing.T) {
	c := clienttest.New(t)
	for _, name := range []string{"n2", "n1"} {
		clienttest.Create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	var last string
	for _, name := range []string{"idle", "db", "late"} {
		p := clienttest.Create(t, c, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}})
		if name != "late" {
			last = p.ResourceVersion
		}
	}
	clienttest.Create(t, c, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "p"}})
	n1 := `# HELP knarr_network_policy_revision of something
knarr_network_policy_revision 1.5e+09
knarr_network_policy_in_force_since_seconds{namespace="shop",policy="db"} 1.7640000005e+09
knarr_network_policy_denied_packets_total{direction="egress",namespace="shop",policy="db"} 2
knarr_network_policy_denied_packets_total{direction="ingress",namespace="shop",policy="db"} 5
`
	n2 := "knarr_network_policy_revision " + last + `
knarr_network_policy_in_force_since_seconds{namespace="shop",policy="db"} 1.764000007e+09
knarr_network_policy_denied_packets_total{direction="ingress",namespace="shop",policy="db"} 1
`
	list := func(of map[string]string) (string, string) {
		var out, problems bytes.Buffer
		ask := func(_ context.Context, path string) ([]byte, error) {
			body, there := of[strings.Split(path, "/")[4]]
			if !there {
				return nil, errors.New("no route to host")
			}
			return []byte(body), nil
		}
		if err := listPolicies(t.Context(), &out, &problems, c, "shop", ask); err != nil {
			t.Fatal(err)
		}
		return out.String(), problems.String()
	}
	out, problems := list(map[string]string{"n1": n1, "n2": n2})
	want := `NAMESPACE   NAME   NODES   IN FORCE ON ALL SINCE   DROPPED IN   DROPPED OUT
shop        db     2/2     2025-11-24T16:00:07Z    6            2
shop        idle   2/2     - (it selects no pod that runs)   0   0
shop        late   1/2     not yet                 0            0
`
	if squeeze(out) != squeeze(want) || problems != "" {
		t.Errorf("got\n%s\nwant\n%s\nproblems: %s", out, want, problems)
	}
	out, problems = list(map[string]string{"n1": "go_goroutines 5\n"})
	if strings.Count(out, "0/2") != 3 || !strings.Contains(problems, "node n1 does not say which policies it has: its metrics have none") || !strings.Contains(problems, "no route") {
		t.Errorf("nodes that do not answer:\n%s%s", out, problems)
	}
}
