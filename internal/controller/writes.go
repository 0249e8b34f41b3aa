package controller

import (
	"strings"

	"github.com/knarr-io/knarr/internal/api"
)

// Act is how a controller writes.
type Act int

// The acts. Two controllers may both delete objects of a kind, or one create what the other changes; no two set the same field.
const (
	ActSet Act = iota
	ActCreate
	ActDelete
)

// Write is one thing that a controller writes, beside events.
type Write struct {
	Act      Act
	Resource *api.Resource // nil: of every resource
	// Field is the path of what is set, from the object's root; what is below it is set, too. An element of a list stands in it by its
	// key: "status", "conditions", "Ready".
	Field []string
	// Only says which objects it is; "" means all. Writes that differ in it are of different objects.
	Only string
}

// Sets declares that a controller sets a field of objects that exist.
func Sets(res *api.Resource, field ...string) Write {
	return Write{Act: ActSet, Resource: res, Field: field}
}

// Creates declares that a controller creates objects.
func Creates(res *api.Resource) Write { return Write{Act: ActCreate, Resource: res} }

// Deletes declares that a controller deletes objects.
func Deletes(res *api.Resource) Write { return Write{Act: ActDelete, Resource: res} }

// Of limits w to some objects.
func (w Write) Of(only string) Write {
	w.Only = only
	return w
}

// String shows w as it is read: "sets status.conditions of pods (on tainted nodes)".
func (w Write) String() string {
	var b strings.Builder
	b.WriteString([]string{"sets ", "creates ", "deletes "}[w.Act])
	if w.Act == ActSet {
		b.WriteString(strings.Join(w.Field, ".") + " of ")
	}
	if w.Resource == nil {
		b.WriteString("everything")
	} else {
		b.WriteString(w.Resource.GroupResource().String())
	}
	if w.Only != "" {
		b.WriteString(" (" + w.Only + ")")
	}
	return b.String()
}
