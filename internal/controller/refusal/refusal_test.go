package refusal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pods reads "refused@0 ran@10 open@20": pods and the seconds at which they were made.
func pods(t *testing.T, s string) []*corev1.Pod {
	var out []*corev1.Pod
	for i, f := range strings.Fields(s) {
		kind, at, _ := strings.Cut(f, "@")
		var seconds int64
		if _, err := fmt.Sscan(at, &seconds); err != nil {
			t.Fatal(err)
		}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i), CreationTimestamp: metav1.Unix(seconds, 0)}, Spec: corev1.PodSpec{NodeName: "n"}}
		end := corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
		switch kind {
		case "refused":
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, StartTime: &metav1.Time{}, ContainerStatuses: []corev1.ContainerStatus{{}}}
		case "failed":
			p.Status = corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{end}}
		case "ran":
			p.Status.Phase = corev1.PodRunning
		case "starts":
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, StartTime: &metav1.Time{}}
		case "open":
		case "homeless":
			p.Spec.NodeName, p.Status.Phase = "", corev1.PodFailed
		default:
			t.Fatal(kind)
		}
		out = append(out, p)
	}
	return out
}

func TestJudge(t *testing.T) {
	for name, tc := range map[string]struct {
		pods  string
		now   int64
		tries int
		until int64
	}{
		"nothing was refused":                         {"ran@0 failed@1 open@2", 3, 0, 0},
		"a pod that failed after it had run":          {"failed@0", 1, 0, 0},
		"a pod that failed without a node":            {"homeless@0", 1, 0, 0},
		"one was refused":                             {"ran@0 refused@5", 6, 1, 15},
		"many of one try":                             {"refused@5 refused@5 refused@8 refused@5", 9, 1, 18},
		"refused beside others of the same try":       {"ran@5 refused@5", 6, 1, 15},
		"a second try":                                {"refused@0 refused@10", 11, 2, 30},
		"a third":                                     {"refused@0 refused@10 refused@30", 31, 3, 70},
		"the pause stops growing":                     {"refused@0 refused@10 refused@30 refused@70 refused@150 refused@310 refused@610 refused@910", 911, 8, 1210},
		"one was taken since":                         {"refused@0 refused@10 ran@30", 31, 0, 0},
		"one starts since":                            {"refused@0 refused@10 starts@30", 31, 0, 0},
		"refused again after one was taken":           {"refused@0 refused@10 ran@30 refused@40", 41, 1, 50},
		"one is on its way":                           {"refused@0 open@10", 11, 1, 20},
		"one is on its way for so long that it waits": {"refused@0 open@10", 20, 0, 0},
		"one waited before":                           {"open@0 refused@30", 31, 1, 40},
	} {
		p := Judge(pods(t, tc.pods), time.Unix(tc.now, 0))
		until := int64(0)
		if !p.Until.IsZero() {
			until = p.Until.Unix()
		}
		if p.Tries != tc.tries || until != tc.until {
			t.Errorf("%s: %d tries, wait until %d; want %d, %d", name, p.Tries, until, tc.tries, tc.until)
		}
		if holds := tc.tries > 0; p.Holds(time.Unix(tc.now, 0)) != holds {
			t.Errorf("%s: holds %v", name, !holds)
		}
	}
}
