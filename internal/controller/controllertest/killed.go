package controllertest

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// errKilled is the answer to a write of a client that was killed.
var errKilled = errors.New("killed here")

// Killed is a client that takes Left writes and none after them, as if its process had been killed. Events are not counted.
type Killed struct {
	client.Client
	Left int
}

func (k *Killed) spend(obj any) bool {
	if _, ok := obj.(*corev1.Event); ok {
		return true
	}
	k.Left--
	return k.Left >= 0
}

// Create implements client.Client.
func (k *Killed) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	if !k.spend(obj) {
		return nil, errKilled
	}
	return k.Client.Create(ctx, obj)
}

// Update implements client.Client.
func (k *Killed) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	if !k.spend(obj) {
		return nil, errKilled
	}
	return k.Client.Update(ctx, obj, sub)
}

// Delete implements client.Client.
func (k *Killed) Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error {
	if !k.spend(nil) {
		return errKilled
	}
	return k.Client.Delete(ctx, res, key, opts)
}

// many writes objects one by one: a transaction may hold any part of them.
func (k *Killed) many(objs []api.Object, write func([]api.Object) []client.Result) []client.Result {
	out := make([]client.Result, len(objs))
	for i := range objs {
		out[i].Err = errKilled
		if k.spend(objs[i]) {
			out[i] = write(objs[i : i+1])[0]
		}
	}
	return out
}

// CreateMany implements client.Client.
func (k *Killed) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	return k.many(objs, func(o []api.Object) []client.Result { return k.Client.CreateMany(ctx, o) })
}

// UpdateMany implements client.Client.
func (k *Killed) UpdateMany(ctx context.Context, objs []api.Object, sub string) []client.Result {
	return k.many(objs, func(o []api.Object) []client.Result { return k.Client.UpdateMany(ctx, o, sub) })
}

// DeleteMany implements client.Client.
func (k *Killed) DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []client.Result {
	return k.many(objs, func(o []api.Object) []client.Result { return k.Client.DeleteMany(ctx, o, opts) })
}
