package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// follow lists and watches a resource of all namespaces until look says that it is done. A watch that ends is begun again.
func (c *cluster) follow(ctx context.Context, res schema.GroupVersionResource, patience time.Duration, look func(*unstructured.Unstructured) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	for {
		done, err := followOnce(ctx, client.Resource(res), look)
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s after %v: %w", res.Resource, patience, ctx.Err())
		}
		if err != nil {
			return err
		}
	}
}

func followOnce(ctx context.Context, client dynamic.NamespaceableResourceInterface, look func(*unstructured.Unstructured) (bool, error)) (bool, error) {
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	for i := range list.Items {
		if done, err := look(&list.Items[i]); done || err != nil {
			return done, err
		}
	}
	w, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		return false, err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error { // too old: list again
			return false, nil
		}
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			return false, fmt.Errorf("a watch brought %T", e.Object)
		}
		if done, err := look(u); done || err != nil {
			return done, err
		}
	}
	return false, nil
}
