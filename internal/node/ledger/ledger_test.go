package ledger

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/node/task"
)

// list reads "cpu=2 memory=1Gi".
func list(s string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, f := range strings.Fields(s) {
		name, q, _ := strings.Cut(f, "=")
		out[corev1.ResourceName(name)] = resource.MustParse(q)
	}
	return out
}

// pod asks for what list reads.
func pod(name, requests string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list(requests)}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func port(ip string, number int32, protocol corev1.Protocol) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: 80, HostIP: ip, HostPort: number, Protocol: protocol})
	}
}

// sidecar makes the pod's container an init container, with restartPolicy Always or without.
func initContainer(always bool) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, []corev1.Container{{Name: "main"}}
		if policy := corev1.ContainerRestartPolicyAlways; always {
			p.Spec.InitContainers[0].RestartPolicy = &policy
		}
	}
}

func selector(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

// open returns a ledger whose goroutines run until the test ends.
func open(t *testing.T, allocatable string) *Ledger {
	var tasks task.Group
	ctx, cancel := context.WithCancel(context.Background())
	tasks.Open(ctx)
	t.Cleanup(func() { cancel(); tasks.Close(); tasks.Wait() })
	return New(list(allocatable), &tasks)
}

func TestRefusals(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"disk": "fast"}}}
	for name, tc := range map[string]struct {
		held []*corev1.Pod
		pod  *corev1.Pod
		// want is the reason and, after a colon, how the message ends; "" if the pod is admitted.
		want string
	}{
		"fits":                                {nil, pod("p", "cpu=4 memory=8Gi"), ""},
		"more processor than there is":        {nil, pod("p", "cpu=5"), "OutOfcpu:cpu, requested: 5000, used: 0, capacity: 4000"},
		"more processor than is left":         {[]*corev1.Pod{pod("a", "cpu=3")}, pod("p", "cpu=1500m"), "OutOfcpu:cpu, requested: 1500, used: 3000, capacity: 4000"},
		"exactly what is left":                {[]*corev1.Pod{pod("a", "cpu=3")}, pod("p", "cpu=1"), ""},
		"more memory than is left":            {[]*corev1.Pod{pod("a", "memory=8Gi")}, pod("p", "memory=1"), "OutOfmemory:memory, requested: 1, used: 8589934592, capacity: 8589934592"},
		"more memory than 64 bits can count":  {[]*corev1.Pod{pod("a", "memory=1Gi")}, pod("p", "memory=12E"), "OutOfmemory:requested: 9223372036854775807, used: 1073741824, capacity: 8589934592"},
		"a sum beyond 64 bits":                {[]*corev1.Pod{pod("a", "memory=7E"), pod("b", "memory=7E")}, pod("p", "memory=1"), "OutOfmemory:used: 9223372036854775807, capacity: 8589934592"},
		"more pods than the node takes":       {[]*corev1.Pod{pod("a", ""), pod("b", ""), pod("c", "")}, pod("p", ""), "OutOfpods:pods, requested: 1, used: 3, capacity: 3"},
		"huge pages that the node lacks":      {nil, pod("p", "hugepages-2Mi=2Mi"), "OutOfhugepages-2Mi:requested: 2097152, used: 0, capacity: 0"},
		"none of the huge pages it lacks":     {nil, pod("p", "hugepages-2Mi=0"), ""},
		"a device that is the scheduler's":    {nil, pod("p", "example.com/dongle=3"), ""},
		"storage on a node that counts none":  {nil, pod("p", "ephemeral-storage=1Gi"), ""},
		"labels that the node has":            {nil, pod("p", "", selector("disk", "fast")), ""},
		"labels that the node lacks":          {nil, pod("p", "", selector("disk", "slow")), "NodeAffinity:node(s) didn't match Pod's node affinity/selector"},
		"a port that is taken":                {[]*corev1.Pod{pod("a", "", port("", 80, ""))}, pod("p", "", port("", 80, corev1.ProtocolTCP)), "NodePorts:free ports for the requested pod ports"},
		"a port taken at every address":       {[]*corev1.Pod{pod("a", "", port("0.0.0.0", 80, ""))}, pod("p", "", port("192.0.2.1", 80, "")), "NodePorts:ports"},
		"a port of another address":           {[]*corev1.Pod{pod("a", "", port("192.0.2.2", 80, ""))}, pod("p", "", port("192.0.2.1", 80, "")), ""},
		"a port of another protocol":          {[]*corev1.Pod{pod("a", "", port("", 80, corev1.ProtocolUDP))}, pod("p", "", port("", 80, "")), ""},
		"a port that a sidecar has":           {[]*corev1.Pod{pod("a", "", port("::", 80, ""), initContainer(true))}, pod("p", "", port("", 80, "")), "NodePorts:ports"},
		"a port that an init container wants": {[]*corev1.Pod{pod("a", "", port("", 80, ""), initContainer(false))}, pod("p", "", port("", 80, "")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, "cpu=4 memory=8Gi pods=3")
			for _, p := range tc.held {
				l.Hold(p)
			}
			f := l.Admit(tc.pod, node)
			reason, end, _ := strings.Cut(tc.want, ":")
			switch {
			case f == nil && tc.want == "":
			case f == nil:
				t.Errorf("admitted, want %s", tc.want)
			case f.Reason != reason || !strings.HasSuffix(f.Message, end) || !strings.HasPrefix(f.Message, "Pod was rejected: "):
				t.Errorf("refused with %s: %s; want %q", f.Reason, f.Message, tc.want)
			}
		})
	}
}

func TestWhatIsHeldCannotBeHadAgain(t *testing.T) {
	l := open(t, "cpu=4 pods=10")
	a, b := pod("a", "cpu=3", port("", 80, "")), pod("b", "cpu=3", port("", 81, ""))
	if f := l.Admit(a, nil); f != nil {
		t.Fatal(f)
	}
	if l.Admit(b, nil) == nil {
		t.Error("six processors of four were given away")
	}
	if f := l.Admit(pod("c", "cpu=1"), nil); f != nil {
		t.Errorf("what was refused is held all the same: %v", f)
	}
	l.Release(a.UID)
	l.Release(a.UID) // a second time, as the worker may
	if f := l.Admit(b, nil); f != nil {
		t.Errorf("what was given back cannot be had: %v", f)
	}
	l.Hold(pod("d", "cpu=100")) // it runs: an agent that was restarted finds it so
	if l.Admit(pod("e", "cpu=1m"), nil) == nil {
		t.Error("there is room beside a pod that holds too much")
	}
}

func TestAPodThatWaitsForRoomIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "cpu=4 memory=8Gi")
		woken := make(chan string, 10)
		wake := func() { woken <- "a" }
		a, b := pod("a", "cpu=1"), pod("b", "cpu=2")
		l.Hold(a)
		l.Hold(b)
		grown := pod("a", "cpu=3")
		if _, known := l.Resize(grown, wake); known {
			t.Error("whether there is room is known before all pods are")
		}
		l.Complete()
		if <-woken; len(woken) != 0 {
			t.Error("woken twice")
		}
		pending, known := l.Resize(grown, wake)
		if want := "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000"; !known || pending.Reason != corev1.PodReasonDeferred || pending.Message != want {
			t.Errorf("%+v, want %s", pending, want)
		}
		if pending, _ := l.Resize(pod("b", "cpu=500m"), func() { t.Error("b waits for nothing") }); pending.Reason != "" {
			t.Errorf("shrinking waits: %+v", pending)
		}
		<-woken
		if pending, _ := l.Resize(grown, wake); pending.Reason != "" {
			t.Errorf("there is room now: %+v", pending)
		}
		l.Release(b.UID)
		synctest.Wait()
		if len(woken) != 0 {
			t.Error("a pod that has what it wanted is woken")
		}
	})
}

func TestResizesThatCannotBe(t *testing.T) {
	l := open(t, "cpu=4 memory=8Gi")
	l.Complete()
	l.Hold(pod("a", "cpu=1 memory=1Gi"))
	pending, _ := l.Resize(pod("a", "cpu=1 memory=9Gi"), nil)
	if want := "Node didn't have enough capacity: memory, requested: 9663676416, capacity: 8589934592"; pending.Reason != corev1.PodReasonInfeasible || pending.Message != want {
		t.Errorf("%+v, want %s", pending, want)
	}
	if pending, known := l.Resize(pod("stranger", "cpu=100"), nil); !known || pending.Reason != "" {
		t.Errorf("a pod that holds nothing is not counted: %+v", pending)
	}
	l.Hold(pod("b", "memory=7Gi"))
	if f := l.Admit(pod("c", "memory=1"), nil); f == nil {
		t.Error("a resize that was refused changed what is held")
	}
}

func TestExtendedResources(t *testing.T) {
	for name, want := range map[corev1.ResourceName]bool{"example.com/dongle": true, "cpu": false, "hugepages-2Mi": false, "kubernetes.io/batch-cpu": false} {
		if Extended(name) != want {
			t.Errorf("Extended(%s) = %v", name, !want)
		}
	}
}
