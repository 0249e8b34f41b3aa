package store

import (
	"context"
	"errors"
	"fmt"
)

// Backend is where the bytes live: etcd or memory. Both pass the same test suite.
type Backend interface {
	// Commit applies all ops in one atomic transaction at one new revision, which it returns. If a condition does not hold
	// nothing is applied and the error is a *ConflictError.
	Commit(ctx context.Context, ops []Op) (rev int64, err error)
	// Load calls visit for every key below prefix as of one revision, in order, and returns that revision.
	Load(ctx context.Context, prefix string, visit func(KV) error) (rev int64, err error)
	// Watch calls apply with the changes below prefix after revision from, in order; all changes of one revision arrive in one
	// call. A call without changes says that there are none up to rev. It returns ErrTooOld when from has been compacted, nil when
	// ctx ends.
	Watch(ctx context.Context, prefix string, from int64, apply func(rev int64, changes []Change)) error
	// Revision returns the backend's newest revision, linearizably. A running Watch reaches it, with changes or without.
	Revision(ctx context.Context) (int64, error)
}

// Any as an Op's condition matches whatever is stored.
const Any int64 = -1

// Op puts a value (or deletes the key when Value is nil), provided that the key was last modified at revision If: 0 means that it
// must not exist, Any that it may be anything. With Check nothing is put or deleted: only the condition is looked at.
type Op struct {
	Key   string
	Value []byte
	If    int64
	Check bool
}

// KV is one key with its value and the revision that wrote it.
type KV struct {
	Key   string
	Value []byte
	Rev   int64
}

// Change is one put, or a deletion (nil Value).
type Change struct {
	Key   string
	Value []byte
}

// ConflictError says which ops (by index) of a transaction did not find the revision they asked for.
type ConflictError struct {
	Ops []int
	// Rev is a revision at which the refusal can be seen: whoever has followed the changes up to it knows what was in the way.
	Rev int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("transaction refused: %d conditions do not hold", len(e.Ops))
}

// ErrTooOld says that a revision is no longer in the history that is kept.
var ErrTooOld = errors.New("the revision is too old")

// ErrUnavailable says that the backend could not be asked, or did not answer in time: what was asked of it may have happened or not,
// or may yet happen.
var ErrUnavailable = errors.New("the store's backend is not available")

// ErrFull says that the backend has no room for what was to be written.
var ErrFull = errors.New("the database of the cluster's objects is full (etcd's quota): delete what is not needed; it is compacted within minutes")
