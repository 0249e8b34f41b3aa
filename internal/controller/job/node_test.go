package job

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// fate is how a pod ends: with which exit code and how long after it was made; a negative time is never.
type fate func(pod *corev1.Pod) (code int32, after time.Duration)

// node is a controller that does a node's work: it binds pods, runs them, ends them as their fate is, and removes deleted ones.
type node struct {
	client client.Client
	stop   time.Duration // how long a deleted pod takes to end

	mu   sync.Mutex // workers ask one after another: a fate may remember what it said
	fate fate
}

// fateOf returns how a pod ends.
func (n *node) fateOf(p *corev1.Pod) (code int32, after time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fate(p)
}

func newNode(c client.Client, stop time.Duration, f fate) controller.Controller {
	return controller.Controller{Name: "node", Workers: 4, Watches: []controller.Watch{{Resource: api.Pods}}, Reconciler: &node{client: c, fate: f, stop: stop}}
}

func always(code int32, after time.Duration) fate {
	return func(*corev1.Pod) (int32, time.Duration) { return code, after }
}

func (n *node) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	p, err := client.Get[*corev1.Pod](ctx, n.client, key)
	if err != nil {
		return 0, nil
	}
	if p.Spec.NodeName == "" && p.DeletionTimestamp == nil {
		return 0, n.client.BindMany(ctx, []client.Binding{{Pod: key, UID: string(p.UID), Node: "node"}})[0].Err
	}
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	if p.DeletionTimestamp != nil {
		return n.remove(ctx, p, ended)
	}
	if ended {
		return 0, nil
	}
	if p.Status.Phase == corev1.PodPending {
		p, err = client.Mutate(ctx, n.client, key, "status", func(o *corev1.Pod) bool { ct.MakeReady(o, "10.0.0.1", time.Now()); return true })
		if err != nil {
			return 0, err
		}
	}
	code, after := n.fateOf(p)
	if after < 0 {
		return 0, nil
	}
	if left := time.Until(p.CreationTimestamp.Add(after)); left > 0 {
		return left, nil
	}
	return 0, n.end(ctx, key, code)
}

func (n *node) end(ctx context.Context, key api.Key, code int32) error {
	_, err := client.Mutate(ctx, n.client, key, "status", func(o *corev1.Pod) bool { exit(o, code, time.Now()); return true })
	return err
}

// exit sets the status of a pod whose container ended.
func exit(o *corev1.Pod, code int32, at time.Time) {
	o.Status.Phase = corev1.PodSucceeded
	if code != 0 {
		o.Status.Phase = corev1.PodFailed
	}
	o.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: code, FinishedAt: metav1.NewTime(at)}}}}
	for i := range o.Status.Conditions {
		if o.Status.Conditions[i].Type == corev1.PodReady {
			o.Status.Conditions[i].Status = corev1.ConditionFalse
		}
	}
}

func (n *node) remove(ctx context.Context, p *corev1.Pod, ended bool) (time.Duration, error) {
	began := p.DeletionTimestamp.Add(-time.Duration(*p.DeletionGracePeriodSeconds) * time.Second)
	if left := time.Until(began.Add(n.stop)); left > 0 {
		return left, nil
	}
	if !ended {
		if err := n.end(ctx, api.KeyOf(p), 137); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	zero := int64(0)
	err := client.Delete[*corev1.Pod](ctx, n.client, api.KeyOf(p), metav1.DeleteOptions{GracePeriodSeconds: &zero})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return 0, err
}
