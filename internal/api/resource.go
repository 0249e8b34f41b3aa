// Package api says what objects are. Everything Knarr knows about a resource - its names, defaults, validation,
// subresources, selectable fields, printer columns - stands in one [Resource] value, listed in [Builtin].
//
// What flows through it: the server decodes into the versioned Go types of k8s.io/api, asks the Resource to default,
// prepare and validate them, and stores them; printers turn them into tables. What must stay true: an Object handed
// to a function whose name does not begin with Default or Prepare is never changed; upstream's k8s.io/kubernetes
// packages are imported here and nowhere else (see docs/adr/0001). Tests: TestLookingChangesNothing,
// TestImportsPointDown.
package api

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Object is one API object of any kind. Objects that come out of the store or a client are shared and immutable:
// DeepCopyObject before changing one.
type Object interface {
	runtime.Object
	metav1.Object
}

// Key names an object within its resource. Namespace is empty for cluster-scoped resources.
type Key = types.NamespacedName

// KeyOf returns the key of obj.
func KeyOf(obj metav1.Object) Key {
	return Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// Resource is everything the server knows about one stored resource, in the version in which it is stored.
type Resource struct {
	schema.GroupVersionKind        // the stored version, e.g. apps/v1 Deployment
	Plural                  string // "deployments"
	Singular                string // "deployment"
	ShortNames              []string
	Categories              []string // "all"
	Namespaced              bool
	// Prefix is the resource's path below /registry/, as Kubernetes lays it out: "pods", "services/specs".
	Prefix string
	// Versions are further group-versions in which the same stored objects are served (events.k8s.io/v1 for events);
	// the scheme converts.
	Versions []schema.GroupVersion
	// Verbs the server offers; nil means all of create delete deletecollection get list patch update watch.
	Verbs []string
	// Status says that there is a status subresource: writes to the main resource keep status, writes to status keep
	// everything else.
	Status bool
	// Scale, if set, describes the scale subresource.
	Scale *Scale
	// Subresources are further subresources ("binding", "eviction", "log", "exec", "token", "finalize", ...), for
	// discovery and routing.
	Subresources []Subresource
	// CreateOnUpdate says that a PUT of an object that does not exist creates it.
	CreateOnUpdate bool
	// LeavesDependents says that a DELETE without a propagation policy orphans dependents, for compatibility: that of jobs and
	// replication controllers. kubectl sends a policy.
	LeavesDependents bool
	// Conditional says that a PUT must name the resourceVersion that it is based on.
	Conditional bool
	// AnswersDeleted says that a DELETE which removed an object is answered with it rather than with a Status.
	AnswersDeleted bool

	// Indexes map an object to the values under which the named index of the shared copy holds it. Every resource has
	// IndexOwner.
	Indexes map[string]func(obj Object) []string
	// History is how many changes are kept for watches that begin in the past; 0 leaves it to the store.
	History int
	// Share, if set, makes an object that nobody else has yet share what it says twice. It writes nothing but the object
	// itself: what is behind its pointers, maps and slices may be shared with others already.
	Share func(obj Object)

	// New returns an empty object of the stored version; NewList an empty list.
	New     func() Object
	NewList func() runtime.Object

	// Default sets Kubernetes' defaults of the stored version in place.
	Default func(obj Object)
	// PrepareForCreate clears what clients may not set and fills what the server sets (generation, status), in place. It leaves
	// nothing for Default to fill: what is decoded from the store is defaulted, and an object must be the same before and after.
	PrepareForCreate func(obj Object)
	// PrepareForUpdate does the same for an update; sub is the subresource written ("" for the object itself,
	// "status", "ephemeralcontainers", "resize", "finalize"). It bumps metadata.generation where the spec changed.
	PrepareForUpdate func(obj, old Object, sub string)
	// Validate checks a new object, ValidateUpdate a changed one; both after defaulting and preparing.
	Validate       func(obj Object) field.ErrorList
	ValidateUpdate func(obj, old Object, sub string) field.ErrorList
	// ResetFields chooses, by subresource ("" for the object itself), the fields that a write can set: server-side apply
	// makes the writer the owner of no other. A subresource that is not there can set all.
	ResetFields map[string]fieldpath.Filter
	// Warnings for the client (deprecated fields and the like); old is nil on create.
	Warnings func(obj, old Object) []string
	// StatusWarnings are those for who writes the status subresource.
	StatusWarnings func(obj, old Object) []string

	// Fields are the values that field selectors may name, besides metadata.name and metadata.namespace. SelectableFields
	// lists their names.
	Fields           func(obj Object) fields.Set
	SelectableFields []string

	// GracePeriod returns how long, in seconds, a deleted object stays with a deletionTimestamp before it is removed;
	// nil means at once. requested is the client's wish or nil. Only pods have one.
	GracePeriod func(obj Object, requested *int64) int64
	// BeginDeletion, if set, marks an object that is to be deleted, in place - a namespace's phase, a definition's finalizer -
	// and reports whether it stays until something other than finalizers is done. It replaces what the object's slices and maps
	// hold, which are shared.
	BeginDeletion func(obj Object) (stays bool)

	// Encode makes the stored form of an object, Decode reads it; those of the built-in resources stand in storage.go.
	Encode func(obj Object) ([]byte, error)
	Decode func(data []byte) (Object, error)

	// Packing, if set, makes objects small in the store's table.
	Packing *Packing

	// Dynamic is what only resources have that are declared while the server runs; all zero for the built-in ones.
	Dynamic

	// shallow returns a copy of obj that shares everything below its first level.
	shallow func(obj Object) Object
}

// Scale says where the scale subresource finds its numbers.
type Scale struct {
	// Get returns an error that is a MissingReplicas, beside the other values, where the object does not say how many it wants.
	Get func(obj Object) (spec, status int32, selector string, err error)
	Set func(obj Object, replicas int32)
}

// MissingReplicas is the error that an object has no field which says how many replicas it wants. Custom resources may lack it.
type MissingReplicas struct{ Path string }

func (e MissingReplicas) Error() string {
	return fmt.Sprintf("the spec replicas field %q does not exist", e.Path)
}

// Subresource is one more path below an object.
type Subresource struct {
	Name  string                  // "binding"
	Kind  schema.GroupVersionKind // the kind exchanged, e.g. v1 Binding
	Verbs []string
	// Open says that what follows the name in the path belongs to the subresource (proxy).
	Open bool
}

// GroupResource is the resource's name in errors and RBAC rules, e.g. deployments.apps.
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}

// GroupVersionResource names the resource in its stored version.
func (r *Resource) GroupVersionResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural}
}

// Subresource returns what is declared under a name: "status" and "scale" where Status and Scale say that they are
// there, else one of Subresources.
func (r *Resource) Subresource(name string) (Subresource, bool) {
	verbs := []string{"get", "patch", "update"}
	switch {
	case name == "status" && r.Status:
		return Subresource{Name: name, Kind: r.GroupVersionKind, Verbs: verbs}, true
	case name == "scale" && r.Scale != nil:
		return Subresource{Name: name, Kind: autoscalingv1.SchemeGroupVersion.WithKind("Scale"), Verbs: verbs}, true
	}
	for _, s := range r.Subresources {
		if s.Name == name {
			return s, true
		}
	}
	return Subresource{}, false
}

// Table returns what the keys of all objects of the resource begin with in etcd, as Kubernetes lays them out.
func (r *Resource) Table() string { return "/registry/" + r.Prefix + "/" }

// Key returns an object's key within Table.
func (r *Resource) Key(k Key) string {
	if r.Namespaced {
		return k.Namespace + "/" + k.Name
	}
	return k.Name
}
