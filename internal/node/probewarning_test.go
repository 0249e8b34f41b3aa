package node

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// warner answers every probe with a warning.
type warner struct{ execProber }

func (warner) Run(context.Context, *corev1.Probe, probe.Target) (probe.Outcome, string) {
	return probe.Warned, "Probe terminated redirects, Response body: x"
}

// A probe that is redirected to another host succeeds, and an event tells of it.
func TestAProbeThatWarnsSucceeds(t *testing.T) {
	inBubble(t, runtime.FakeOptions{}, func(w *world) {
		w.agent.host.Prober = warner{}
		w.create(testPod("a", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 5, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80), Scheme: corev1.URISchemeHTTP}}}
		}))
		w.wait(6 * time.Second)
		w.expect("a", "Running c=running+ready")
		w.expectEvent("a", "ProbeWarning", "Readiness probe warning: Probe terminated redirects, Response body: x")
	})
}
