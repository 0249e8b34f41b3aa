package event_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/event"
)

func TestRepeatsRaiseTheCount(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		cm := ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cm"}})
		for range 3 {
			event.Write(c.T.Context(), c.Client, "tester", time.Now(), event.Warning(cm, "Odd", "it is %s", "odd"), event.Normal(cm, "Even", "it is even"))
			c.Pass(time.Minute)
		}
		events := ct.All[*corev1.Event](c, "default")
		if len(events) != 2 {
			t.Fatalf("%d events, want 2", len(events))
		}
		for _, e := range events {
			got := fmt.Sprintf("%s %s/%s x%d over %v", e.InvolvedObject.Kind, e.InvolvedObject.APIVersion, e.Source.Component, e.Count, e.LastTimestamp.Sub(e.FirstTimestamp.Time))
			if want := "ConfigMap v1/tester x3 over 2m0s"; got != want || e.InvolvedObject.UID != cm.UID {
				t.Errorf("event %s: %s, want %s", e.Reason, got, want)
			}
		}
	})
}

func TestNoNamespaceIsNoTrouble(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		lost := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "never-was", Name: "cm"}}
		node := ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		event.Write(c.T.Context(), c.Client, "tester", time.Now(), event.Normal(lost, "Lost", "gone"), event.Normal(node, "Here", "still"))
		if got := c.Events("Here"); len(got) != 1 {
			t.Errorf("events %q, want the node's whatever became of the other", got)
		}
	})
}
