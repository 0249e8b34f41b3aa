package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const nodesPatience = 4 * time.Minute

var nodesResource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}

// startKwok lets kwok play every node of the cluster with the stages that it comes with: nodes are ready at once and renew their leases, pods
// are ready once they are bound. It has no limit of requests; its four workers for pods are made sixteen.
func (b *bench) startKwok(c *cluster) error {
	stages, err := os.ReadFile(filepath.Join(b.peers, "kwok-stages.yaml"))
	if err != nil {
		return err
	}
	config := filepath.Join(c.dir, "kwok.yaml")
	options := `apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  podPlayStageParallelism: 16
  nodePlayStageParallelism: 16
  nodeLeaseParallelism: 16
---
`
	if err := os.WriteFile(config, append([]byte(options), stages...), 0o600); err != nil {
		return err
	}
	c.kwok, err = startProcess(c.dir, "kwok", filepath.Join(b.peers, "kwok"),
		"--config", config, "--kubeconfig", c.kubeconfig, "--manage-all-nodes=true", "--node-lease-duration-seconds", "40", "--cidr", "10.128.0.1/9", "--v", "warn")
	return err
}

// addNodes creates nodes as large as Knarr's hollow ones.
func (c *cluster) addNodes(ctx context.Context, n int) error {
	const clients = 8
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for worker := range clients {
		wg.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += clients {
				errs[worker] = c.send(ctx, http.MethodPost, "/api/v1/nodes", fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Node","metadata":{"name":"kwok-%04d",
"labels":{"kubernetes.io/hostname":"kwok-%04d","kubernetes.io/os":"linux","kubernetes.io/arch":"amd64"}},
"status":{"capacity":{"cpu":"32","memory":"256Gi","pods":"250","ephemeral-storage":"1Ti"},
"allocatable":{"cpu":"32","memory":"256Gi","pods":"250","ephemeral-storage":"1Ti"}}}`, i, i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// waitNodes waits until n nodes are Ready and take pods.
func (c *cluster) waitNodes(ctx context.Context, n int) error {
	ready := map[string]bool{}
	err := c.follow(ctx, nodesResource, nodesPatience, func(u *unstructured.Unstructured) (bool, error) {
		var node corev1.Node
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &node); err != nil {
			return false, err
		}
		ready[node.Name] = takesPods(&node)
		count := 0
		for _, ok := range ready {
			if ok {
				count++
			}
		}
		return count == n, nil
	})
	if err != nil && c.kwok != nil {
		err = fmt.Errorf("%w\nkwok: %s", err, c.kwok.tail())
	}
	return err
}

func takesPods(node *corev1.Node) bool {
	if len(node.Spec.Taints) > 0 || node.Status.Allocatable.Pods().IsZero() {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
