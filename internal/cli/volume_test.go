package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/local"
)

func TestVolumesOfAllNodesAreListed(t *testing.T) {
	c := clienttest.New(t)
	for _, name := range []string{"n2", "n1", "away"} {
		clienttest.Create(t, c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	of := map[string][]local.Listed{
		"n1": {{Handle: "pvc-1", About: local.About{Namespace: "shop", Claim: "db", Bytes: 10 << 30}, Used: 1234567890, Pods: []string{"shop/db-0", "shop/dump"}},
			{Handle: "pvc-2", About: local.About{Namespace: "shop", Claim: "old", Bytes: 1 << 20, Limited: true}, Used: 512, Orphan: true}},
		"n2": {{Handle: "pvc-3", About: local.About{Namespace: "shop", Claim: "raw", Bytes: 1500 << 20, Raw: true}}},
	}
	ask := func(_ context.Context, path string) ([]byte, error) {
		node := strings.TrimSuffix(strings.TrimPrefix(path, "/api/v1/nodes/"), "/proxy/volumes")
		if node == "away" {
			return nil, errors.New("no route to host")
		}
		return json.Marshal(of[node])
	}
	var out, problems bytes.Buffer
	if err := listVolumes(t.Context(), &out, &problems, c, ask); err != nil {
		t.Fatal(err)
	}
	want := `NODE   VOLUME   CLAIM      SIZE      LIMIT    USED     PODS
n1     pvc-1    shop/db    10Gi      none     1.15Gi   shop/db-0,shop/dump
n1     pvc-2    shop/old   1Mi       loop     512      - (no PersistentVolume: its data stays until you remove it)
n2     pvc-3    shop/raw   1.46Gi    device   0        -
`
	if squeeze(out.String()) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if got := problems.String(); got != "node away does not say which volumes it has: no route to host\n" {
		t.Errorf("problems: %s", got)
	}
}

// squeeze makes one blank of many.
func squeeze(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}
