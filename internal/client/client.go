// Package client is how everything above the server reads and writes objects: from the one in-memory copy and through
// the front door, either in the same process ([Local]) or, for a machine that joined,
// over TLS ([Remote]).
//
// What flows through it: typed reads ([Get], [List], [Follow], [Await]) that return shared, immutable objects - DeepCopy before
// changing one - and writes that pass the same defaulting, admission and validation as HTTP requests do. What must
// stay true: nobody above keeps an informer cache of their own; a write that returned is visible to the next read of
// the same client.
package client

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/labels"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/server/claims"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// Client reads and writes objects. Errors are k8s.io/apimachinery/pkg/api/errors statuses (IsNotFound, IsConflict,
// IsAlreadyExists, IsInvalid, ...). Use the typed functions of this package rather than the methods where the type is
// known.
type Client interface {
	// Served returns the catalogue: which resources there are, now and from now on.
	Served() *api.Served

	Get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error)
	List(ctx context.Context, res *api.Resource, opts ListOptions) ([]api.Object, error)
	Watch(ctx context.Context, res *api.Resource, opts ListOptions) (Watcher, error)

	// Create stores a new object; Update replaces one (sub "" or a subresource such as "status") and fails with a
	// conflict unless obj's resourceVersion is current (an empty one matches any). Both return the stored object and
	// keep obj: it must not be changed afterwards.
	Create(ctx context.Context, obj api.Object) (api.Object, error)
	Update(ctx context.Context, obj api.Object, sub string) (api.Object, error)
	// Delete starts graceful deletion or removes the object.
	Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error

	// CreateMany and UpdateMany write in bulk, in as few transactions as possible. Items succeed and fail on their own;
	// results[i] belongs to objs[i].
	CreateMany(ctx context.Context, objs []api.Object) []Result
	UpdateMany(ctx context.Context, objs []api.Object, sub string) []Result
	// DeleteMany deletes likewise. An object that has another UID by now stays: that is a conflict. A Result's Object may be nil.
	DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []Result
	// BindMany sets spec.nodeName and the PodScheduled condition of pods that have none yet.
	BindMany(ctx context.Context, bindings []Binding) []Result
}

// Result is the outcome of one item of a bulk write.
type Result = registry.Result

// Binding assigns a pod to a node. UID, if set, must be the pod's.
type Binding = registry.Binding

// Claim is what a Binding does to one of the pod's ResourceClaims. Only [Local] carries it out.
type Claim = claims.Claim

// VolumeBinding is what a Binding does to one of the pod's PersistentVolumeClaims. Only [Local] carries it out.
type VolumeBinding = volume.Binding

// ListOptions narrow a List or Watch. The zero value means everything.
type ListOptions struct {
	Namespace string
	// Name, with Namespace where the resource has one, chooses a single object.
	Name   string
	Labels labels.Selector // nil matches everything
	// Index and Value choose the objects for which the named index of the store holds Value; see the Index constants.
	Index, Value string
	// OnlyReach, of a Watch of pods of all nodes, is for those who look at labels, addresses and named ports alone: on a machine that joined
	// that is all there is, and it is kept apart from the pods that are whole.
	OnlyReach bool
}

// Indexes of the shared copy.
const (
	// IndexNode holds pods, pod certificate requests and resource slices by spec.nodeName.
	IndexNode = api.IndexNode
	// IndexOwner holds objects by the UID of each of their owner references.
	IndexOwner = api.IndexOwner
	// IndexJob holds pods by the UID of the Job that has not done with them.
	IndexJob = api.IndexJob
	// IndexClaim holds pods by NAMESPACE/NAME of each ResourceClaim that they use.
	IndexClaim = api.IndexClaim
	// IndexVolumeClaim holds pods by NAMESPACE/NAME of each PersistentVolumeClaim that their volumes mean.
	IndexVolumeClaim = api.IndexVolumeClaim
	// IndexVolume holds PersistentVolumes by what volume.FreeOf and volume.NamedBy return.
	IndexVolume = api.IndexVolume
	// IndexService holds EndpointSlices by NAMESPACE/SERVICE, from the label kubernetes.io/service-name.
	IndexService = api.IndexService
)

// Watcher delivers what happens to the watched objects: first the present state, then each change in order. Use [Follow],
// [FollowOnce] or [Await] rather than a loop around it.
type Watcher interface {
	// Next blocks for the next batch. Its slice is the caller's until the next call; the objects are shared. Next returns
	// ctx's error, or ErrStopped after Stop.
	Next(ctx context.Context) (Batch, error)
	Stop()
}

// EventType is the kind of a change.
type EventType int

// Event types.
const (
	Added EventType = iota
	Modified
	Deleted
)

// Event is one change. Object is the new state, or the last one for Deleted; Old is the state before, nil for Added.
type Event struct {
	Type   EventType
	Object api.Object
	Old    api.Object
}

// ResourceOf returns the resource whose objects have Go type T, e.g. *corev1.Pod.
func ResourceOf[T api.Object]() *api.Resource {
	return api.ByType(reflect.TypeFor[T]())
}

// Get returns the object of type T named key, or a NotFound error.
func Get[T api.Object](ctx context.Context, c Client, key api.Key) (T, error) {
	obj, err := c.Get(ctx, ResourceOf[T](), key)
	if err != nil {
		var zero T
		return zero, err
	}
	return obj.(T), nil
}

// List returns the objects of type T that opts choose, ordered by namespace and name.
func List[T api.Object](ctx context.Context, c Client, opts ListOptions) ([]T, error) {
	objs, err := c.List(ctx, ResourceOf[T](), opts)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(objs))
	for i, o := range objs {
		out[i] = o.(T)
	}
	return out, nil
}

// Delete deletes the object of type T named key with default options.
func Delete[T api.Object](ctx context.Context, c Client, key api.Key, opts metav1.DeleteOptions) error {
	return c.Delete(ctx, ResourceOf[T](), key, opts)
}

// Mutate changes the object of type T named key with change, a function applied to a private copy, and writes it to
// subresource sub, again on conflict. change returns false where nothing is to be written.
func Mutate[T api.Object](ctx context.Context, c Client, key api.Key, sub string, change func(obj T) bool) (T, error) {
	return mutate(ctx, c, key, sub, change)
}
