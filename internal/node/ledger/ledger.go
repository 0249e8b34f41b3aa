package ledger

import (
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Ledger is what the pods of one node hold of it.
type Ledger struct {
	allocatable corev1.ResourceList
	tasks       *task.Group

	mu     sync.Mutex
	claims map[types.UID]claim
	// deferred wakes pods that wait for room to grow.
	deferred map[types.UID]func()
	// complete is true once every pod that the API has of this node is known: until then nobody can know whether there is room.
	complete bool
}

// claim is what an admitted pod holds of the node.
type claim struct {
	requests corev1.ResourceList
	ports    []hostPort
}

// New returns an empty ledger of a node that has allocatable to give.
func New(allocatable corev1.ResourceList, tasks *task.Group) *Ledger {
	return &Ledger{allocatable: allocatable, tasks: tasks, claims: map[types.UID]claim{}, deferred: map[types.UID]func(){}}
}

// Requests returns what a pod asks for, by resource.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	return resource.PodRequests(pod, resource.PodResourcesOptions{})
}

// Extended reports whether a resource is one that someone wrote into the node's status: the agent, which has no device plugins, does
// not hand them out, so the scheduler's count of them stands. The kubelet leaves out the extended resources that it does not know
// likewise.
func Extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// Admit gives the pod its share of the node, or says why it does not fit. node is the Node object as far as it is known.
func (l *Ledger) Admit(pod *corev1.Pod, node *corev1.Node) *lifecycle.Failure {
	c := claim{Requests(pod), hostPorts(pod)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := refuse(pod, c, node, l.allocatable, l.claims); f != nil {
		return f
	}
	l.hold(pod.UID, c)
	return nil
}

// Hold notes what a pod holds that runs already.
func (l *Ledger) Hold(pod *corev1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold(pod.UID, claim{Requests(pod), hostPorts(pod)})
}

// hold notes a claim. Most pods ask for the same as any other, and a map of requests takes 650 bytes: equal ones are shared.
// l.mu must be held.
func (l *Ledger) hold(uid types.UID, c claim) {
	for _, o := range l.claims {
		if apiequality.Semantic.DeepEqual(c.requests, o.requests) {
			c.requests = o.requests
		}
		break
	}
	l.claims[uid] = c
}

// Release gives the pod's share back.
func (l *Ledger) Release(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, held := l.claims[uid]
	delete(l.claims, uid)
	delete(l.deferred, uid)
	if held {
		l.wakeDeferred()
	}
}

// Complete notes that every pod which the API has of this node is known.
func (l *Ledger) Complete() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete = true
	l.wakeDeferred()
}

// wakeDeferred makes pods that wait for room look for it again, in goroutines of their own: the caller may hold the lock of a
// worker. l.mu must be held.
func (l *Ledger) wakeDeferred() {
	for _, wake := range l.deferred {
		l.tasks.Go(wake)
	}
}
