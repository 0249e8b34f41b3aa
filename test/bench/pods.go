package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/client-go/dynamic"
)

const deploymentCount = 20

var (
	nodesResource       = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	deploymentsResource = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

func measurePods100(ctx context.Context, b *bench) ([]figure, error) {
	return b.measurePods(ctx, "pods-100", 100, 250, []string{">= 1500 pods/s", "<= 200 MB", "<= 1 ms"})
}

func measurePods1000(ctx context.Context, b *bench) ([]figure, error) {
	return b.measurePods(ctx, "pods-1000", 1000, 500, []string{">= 1000 pods/s", "", ""})
}

// measurePods creates Deployments and waits until their status says that all pods are ready.
func (b *bench) measurePods(ctx context.Context, name string, nodes, replicas int, goals []string) (_ []figure, err error) {
	if b.quick {
		nodes, replicas = nodes/2, replicas/5
	}
	s, err := b.startServer(ctx, filepath.Join(b.dir, name), "--no-agent", "--hollow-nodes", fmt.Sprint(nodes))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(s.dataDir)) }()
	registered, err := s.waitNodes(ctx, nodes)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, 5*time.Second); err != nil { // what follows from the registration
		return nil, err
	}
	rss, err := s.memory("VmRSS")
	if err != nil {
		return nil, err
	}
	idle, err := s.idleCPU(ctx)
	if err != nil {
		return nil, err
	}
	cpu, err := s.cpu()
	if err != nil {
		return nil, err
	}
	pods := deploymentCount * replicas
	waitProfiles := b.profiles(ctx, s, name, 8*time.Second)
	took, err := s.deploy(ctx, replicas)
	if err != nil {
		return nil, err
	}
	after, err1 := s.cpu()
	peak, err2 := s.memory("VmHWM")
	waitProfiles()
	if err := sleep(ctx, 5*time.Second); err != nil {
		return nil, err
	}
	held, err3 := s.memory("VmRSS")
	anonymous, err4 := s.memory("RssAnon")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	return []figure{
		{fmt.Sprintf("%d pods Ready on %d nodes", pods, nodes), fmt.Sprintf("%.0f pods/s", float64(pods)/took.Seconds()), goals[0], fmt.Sprintf("in %v", took.Round(10*time.Millisecond))},
		{"CPU of server and hollow nodes", fmt.Sprintf("%.2f ms a pod", (after-cpu).Seconds()*1000/float64(pods)), goals[2], ""},
		{"RSS, highest", fmt.Sprintf("%.0f MB", peak), goals[1], fmt.Sprintf("%.0f MB before the pods, %.0f MB 5 s after, of which %.0f MB anonymous", rss, held, anonymous)},
		{"nodes registered", fmt.Sprintf("%.0f nodes/s", float64(nodes)/registered.Seconds()), "", fmt.Sprintf("in %v", registered.Round(10*time.Millisecond))},
		{fmt.Sprintf("%d nodes without work, CPU", nodes), fmt.Sprintf("%.1f %%", 100*idle), "", "of a core, leases and statuses of the nodes included"},
	}, nil
}

// idleCPU returns the share of a core that the server uses while nobody asks for anything.
func (s *server) idleCPU(ctx context.Context) (float64, error) {
	const during = 10 * time.Second // one heartbeat of every node
	before, err := s.cpu()
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, during); err != nil {
		return 0, err
	}
	after, err := s.cpu()
	return (after - before).Seconds() / during.Seconds(), err
}

// waitNodes waits until n nodes are Ready.
func (s *server) waitNodes(ctx context.Context, n int) (time.Duration, error) {
	began := time.Now()
	ready := map[string]bool{}
	err := s.follow(ctx, nodesResource, 2*time.Minute, func(u *unstructured.Unstructured) (done bool, err error) {
		var node corev1.Node
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &node); err != nil {
			return false, err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				ready[node.Name] = true
			}
		}
		return len(ready) == n, nil
	})
	return time.Since(began), err
}

// deploy creates the Deployments and returns how long it took until all their pods were ready.
func (s *server) deploy(ctx context.Context, replicas int) (time.Duration, error) {
	c, err := dynamic.NewForConfig(s.config)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range deploymentCount {
		u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(deployment(fmt.Sprintf("d%02d", i), int32(replicas)))
		if err != nil {
			return 0, err
		}
		if _, err := c.Resource(deploymentsResource).Namespace("default").Create(ctx, &unstructured.Unstructured{Object: u}, metav1.CreateOptions{}); err != nil {
			return 0, fmt.Errorf("creating a Deployment: %w", err)
		}
	}
	ready := map[string]int64{}
	err = s.follow(ctx, deploymentsResource, 5*time.Minute, func(u *unstructured.Unstructured) (bool, error) {
		n, _, err := unstructured.NestedInt64(u.Object, "status", "readyReplicas")
		ready[u.GetName()] = n
		var total int64
		for _, n := range ready {
			total += n
		}
		return total == int64(deploymentCount*replicas), err
	})
	return time.Since(began), err
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "c", Image: "docker.io/library/nginx:1",
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")}},
				}}},
			},
		},
	}
}

// follow lists and watches a resource of all namespaces until look says that it is done.
func (s *server) follow(ctx context.Context, res schema.GroupVersionResource, patience time.Duration, look func(*unstructured.Unstructured) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dynamic.NewForConfig(s.config)
	if err != nil {
		return err
	}
	list, err := c.Resource(res).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if done, err := look(&list.Items[i]); done || err != nil {
			return err
		}
	}
	w, err := c.Resource(res).Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return fmt.Errorf("watching %s: %v", res.Resource, e.Object)
		}
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("watching %s: %T", res.Resource, e.Object)
		}
		if done, err := look(u); done || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s did not become ready within %v: %w", res.Resource, patience, context.Cause(ctx))
}
