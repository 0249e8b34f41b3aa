// Package controller runs reconcilers: the one shape in which Knarr drives the world towards what objects ask for.
//
// What flows through it: events of the watched resources are mapped to keys, keys wait in one queue per controller
// (deduplicated, with back-off), workers call Reconcile. What must stay true: a Reconciler has no goroutines of its own, decides
// from current state and never from events, and can be killed between any two lines; two controllers never write the same
// field. Tests: TestRunnerRetriesAndLooksAgain, TestNoTwoControllersSetTheSameField (internal/controlplane).
package controller

import (
	"context"
	"time"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// Reconciler drives one object towards its desired state.
type Reconciler interface {
	// Reconcile drives the object named key towards its desired state from current state, never from events. It is
	// idempotent. An error is retried with back-off unless wrapped by Terminal; after > 0 asks for another look then.
	Reconcile(ctx context.Context, key api.Key) (after time.Duration, err error)
}

// Controller declares one reconciler: what it watches and what it writes.
type Controller struct {
	Name    string // "deployment"
	Workers int    // concurrent Reconcile calls, of different keys; 0 means 1
	Watches []Watch
	// Follow, if set, asks for looks at keys for what happens outside of objects, until ctx ends. look does not block.
	Follow func(ctx context.Context, look func(api.Key))
	// Writes is everything that this controller writes, beside events. Tests check that no two controllers set the same field, and
	// that each writes only what it declares (controllertest).
	Writes     []Write
	Reconciler Reconciler
}

// Watch maps changes of one resource to the keys to reconcile, or of every resource that there is.
type Watch struct {
	Resource *api.Resource
	// Every, in place of Resource and Keys, is asked about each resource that has a table, those that join while the controller runs, too. It returns the
	// Keys for its events; nil leaves the resource unwatched. Watches of resources that leave end.
	Every func(res *api.Resource) func(e client.Event) []api.Key
	// Keys maps an event to keys. obj is the new (or last) state, old the previous one or nil. nil Keys means the object's own key.
	Keys func(e client.Event) []api.Key
}
