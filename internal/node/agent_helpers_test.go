package node

import (
	"context"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/probe"
)

func (e execProber) Run(ctx context.Context, p *corev1.Probe, t probe.Target) (probe.Outcome, string) {
	return (&probe.Prober{Exec: e.rt}).Run(ctx, p, t)
}

func (e execProber) Get(context.Context, *corev1.HTTPGetAction, time.Duration, probe.Target) (int, string, error) {
	return 200, "", nil
}

func (w *world) lease() time.Time {
	w.t.Helper()
	l, err := client.Get[*coordinationv1.Lease](context.Background(), w.c, api.Key{Namespace: corev1.NamespaceNodeLease, Name: "n1"})
	if err != nil {
		w.t.Fatal(err)
	}
	return l.Spec.RenewTime.Time
}

// readyStatus returns the status of the Ready condition.
func readyStatus(list []corev1.NodeCondition) string {
	for _, c := range list {
		if c.Type == corev1.NodeReady {
			return string(c.Status)
		}
	}
	return ""
}

// expectEvent demands an event of a pod with a reason, whose message begins as said.
func (w *world) expectEvent(pod, reason, message string) {
	w.t.Helper()
	list, err := client.List[*corev1.Event](context.Background(), w.c, client.ListOptions{Namespace: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, e := range list {
		if e.InvolvedObject.Name == pod && e.Reason == reason && strings.HasPrefix(e.Message, message) {
			return
		}
		all = append(all, e.InvolvedObject.Name+" "+e.Reason+": "+e.Message)
	}
	w.t.Errorf("no event %s of %s with %q:\n%s", reason, pod, message, strings.Join(all, "\n"))
}
