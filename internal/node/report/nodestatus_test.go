package report

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestNodeConditions(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	first := nodeConditions(nil, health{}, t0)
	foreign := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse}
	second := nodeConditions(append(first, foreign), health{network: "no network", disk: "disk is full"}, t0.Add(time.Minute))
	var got []string
	for _, c := range second {
		got = append(got, fmt.Sprintf("%s=%s@%s", c.Type, c.Status, c.LastTransitionTime.Sub(t0)))
	}
	want := "MemoryPressure=False@0s DiskPressure=True@1m0s PIDPressure=False@0s Ready=False@1m0s NetworkUnavailable=False@"
	if !strings.HasPrefix(strings.Join(got, " "), want) {
		t.Errorf("%v", got)
	}
	if second[3].Message != "no network" || second[3].Reason != "KubeletNotReady" {
		t.Errorf("%+v", second[3])
	}
	if !sameConditions(first, nodeConditions(first, health{}, t0.Add(time.Hour))) || sameConditions(first, second) {
		t.Error("sameConditions")
	}
}
