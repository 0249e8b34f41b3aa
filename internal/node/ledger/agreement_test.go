package ledger

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// TestTheSchedulerAndTheLedgerAgree: a pod that one lets onto a node and the other refuses would be made again and again.
func TestTheSchedulerAndTheLedgerAgree(t *testing.T) {
	names := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "hugepages-2Mi"}
	quantities := []string{"0", "1", "1u", "1m", "1500m", "1.5", "500Mi", "1Gi", "1000000001n", "4", "10P", "8Ei", "12E", "1e30"}
	draw := func(t *rapid.T, label string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, name := range names {
			if rapid.Bool().Draw(t, label+string(name)) {
				out[name] = resource.MustParse(rapid.SampledFrom(quantities).Draw(t, label))
			}
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		allocatable := draw(t, "allocatable")
		for _, name := range names { // a node names what it has; the ledger does not count what it does not
			allocatable[name] = allocatable[name].DeepCopy()
		}
		allocatable[corev1.ResourcePods] = *resource.NewQuantity(rapid.Int64Range(1, 4).Draw(t, "pods"), resource.DecimalSI)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{Allocatable: allocatable}}
		scheduler, ledger := placement.New(placement.Options{NoPreemption: true}), New(allocatable, nil)
		scheduler.SetNode(node)
		for i := range rapid.IntRange(1, 8).Draw(t, "asked") {
			p := pod(fmt.Sprintf("p%d", i), "")
			p.Spec.Containers[0].Resources.Requests = draw(t, "requests")
			if rapid.Bool().Draw(t, "by hand") { // it runs already, whatever it asks for
				p.Spec.NodeName = "n"
				scheduler.SetPod(p)
				ledger.Hold(p)
				continue
			}
			d := scheduler.Place([]*corev1.Pod{p})[0]
			f := ledger.Admit(p, node)
			if (d.Node != "") != (f == nil) {
				t.Fatalf("requests %v: the scheduler chose %q, the ledger says %v", p.Spec.Containers[0].Resources.Requests, d.Node, f)
			}
		}
	})
}
