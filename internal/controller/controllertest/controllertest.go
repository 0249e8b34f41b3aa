// Package controllertest runs controllers against a real front door in virtual time, for their tests.
//
// What flows through it: a test creates objects, lets the controllers settle or time pass, and reads what became of them. What must
// stay true: everything runs inside one testing/synctest bubble, so that an hour of heartbeats takes milliseconds and no test
// waits for a fixed time in the hope that something has happened; all goroutines end with the test.
package controllertest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// Cluster is a cluster in virtual time.
type Cluster struct {
	client.Client
	Registry *registry.Registry // to serve further resources
	T        *testing.T
}

// Run runs f with an empty cluster in a bubble of its own.
func Run(t *testing.T, f func(c *Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, front := clienttest.NewRegistry(t)
		f(&Cluster{Client: newWatched(t, c), Registry: front, T: t})
	})
}

// Start runs controllers until the test ends, or until the returned function is called. One that declares what it writes fails the test
// if it writes anything else.
func (c *Cluster) Start(controllers ...controller.Controller) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	controllers = slices.Clone(controllers)
	for i, of := range controllers {
		controllers[i].Reconciler = named{of}
	}
	go func() {
		r := controller.Runner{Client: c.Client, Log: slog.New(slog.DiscardHandler)}
		done <- r.Run(ctx, controllers...)
	}()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			c.T.Errorf("the controllers failed: %v", err)
		}
	}
	c.T.Cleanup(stop)
	return stop
}

// Settle waits until everything that can happen without time passing has happened.
func (c *Cluster) Settle() { synctest.Wait() }

// Pass lets time pass.
func (c *Cluster) Pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

// Make creates obj or fails the test.
func Make[T api.Object](c *Cluster, obj T) T {
	c.T.Helper()
	return clienttest.Create(c.T, c.Client, obj)
}

// Get reads the object of type T named namespace/name, or fails the test.
func Get[T api.Object](c *Cluster, namespace, name string) T {
	c.T.Helper()
	obj, err := client.Get[T](context.Background(), c.Client, api.Key{Namespace: namespace, Name: name})
	if err != nil {
		c.T.Fatalf("reading %T %s/%s: %v", obj, namespace, name, err)
	}
	return obj
}

// Gone reports whether there is no object of type T named namespace/name.
func Gone[T api.Object](c *Cluster, namespace, name string) bool {
	c.T.Helper()
	_, err := client.Get[T](context.Background(), c.Client, api.Key{Namespace: namespace, Name: name})
	if err != nil && !apierrors.IsNotFound(err) {
		c.T.Fatal(err)
	}
	return err != nil
}

// All lists the objects of type T in namespace ("" for all).
func All[T api.Object](c *Cluster, namespace string) []T {
	c.T.Helper()
	objs, err := client.List[T](context.Background(), c.Client, client.ListOptions{Namespace: namespace})
	if err != nil {
		c.T.Fatal(err)
	}
	return objs
}

// Change applies change to the object of type T named namespace/name, in subresource sub.
func Change[T api.Object](c *Cluster, namespace, name, sub string, change func(T)) T {
	c.T.Helper()
	obj, err := client.Mutate(context.Background(), c.Client, api.Key{Namespace: namespace, Name: name}, sub, func(o T) bool { change(o); return true })
	if err != nil {
		c.T.Fatalf("changing %s/%s: %v", namespace, name, err)
	}
	return obj
}

// Delete deletes the object of type T named namespace/name.
func Delete[T api.Object](c *Cluster, namespace, name string, opts metav1.DeleteOptions) {
	c.T.Helper()
	if err := client.Delete[T](context.Background(), c.Client, api.Key{Namespace: namespace, Name: name}, opts); err != nil {
		c.T.Fatalf("deleting %s/%s: %v", namespace, name, err)
	}
}

// Events returns the messages of the events with reason, in the order of their names.
func (c *Cluster) Events(reason string) []string {
	c.T.Helper()
	var out []string
	for _, e := range All[*corev1.Event](c, "") {
		if e.Reason == reason {
			out = append(out, e.Message)
		}
	}
	return out
}

// Template is a pod template with label app.
func Template(app, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}},
	}
}

// Selector selects by label app.
func Selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

// Kubelet declares a controller that does a node's work without containers: it puts each pod on a node at once - the one that its
// affinity names, if any -, makes it ready after start, and removes it stop after its deletion began. Pods with an image named "broken" never become ready.
func Kubelet(c client.Client, start, stop time.Duration) controller.Controller {
	return controller.Controller{
		Name: "kubelet", Workers: 4,
		Watches:    []controller.Watch{{Resource: api.Pods}},
		Reconciler: &kubelet{client: c, start: start, stop: stop},
	}
}

type kubelet struct {
	client      client.Client
	start, stop time.Duration
}

func (k *kubelet) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	p, err := client.Get[*corev1.Pod](ctx, k.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	switch {
	case p.Spec.NodeName == "":
		return 0, k.client.BindMany(ctx, []client.Binding{{Pod: key, Node: nodeFor(p)}})[0].Err
	case p.DeletionTimestamp != nil:
		began := p.DeletionTimestamp.Add(-time.Duration(*p.DeletionGracePeriodSeconds) * time.Second)
		if left := began.Add(k.stop).Sub(now); left > 0 {
			return left, nil
		}
		zero := int64(0)
		err := client.Delete[*corev1.Pod](ctx, k.client, key, metav1.DeleteOptions{GracePeriodSeconds: &zero})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return 0, err
	case p.Status.Phase == corev1.PodPending && p.Spec.Containers[0].Image != "broken":
		if left := p.CreationTimestamp.Add(k.start).Sub(now); left > 0 {
			return left, nil
		}
		_, err := client.Mutate(ctx, k.client, key, "status", func(o *corev1.Pod) bool {
			MakeReady(o, fmt.Sprintf("10.0.%d.%d", len(o.Name)%250, hash(o.Name)), now)
			return true
		})
		return 0, err
	}
	return 0, nil
}

// nodeFor returns the node that a pod is pinned to, else one for all.
func nodeFor(p *corev1.Pod) string {
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, e := range term.MatchFields {
				return e.Values[0]
			}
		}
	}
	return "node"
}

func hash(s string) byte {
	h := byte(1)
	for i := range len(s) {
		h = h*31 + s[i]
	}
	return h%250 + 1
}

// MakeReady sets the status of a pod that runs and is ready since at.
func MakeReady(p *corev1.Pod, ip string, at time.Time) {
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	var conditions []corev1.PodCondition
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.PodReady {
			conditions = append(conditions, c)
		}
	}
	p.Status.Conditions = append(conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(at)})
}
