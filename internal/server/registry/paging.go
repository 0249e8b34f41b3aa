package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/store"
)

// continueToken is what clients carry from page to page, opaque to them.
type continueToken struct {
	Rev   int64  `json:"rv"` // -1: whatever is newest
	Start string `json:"start"`
	// Since is when the first page was read, in seconds of Unix time: the list can be gone on with for pageLife, however often its
	// pages are read again. A token without it is as old as can be.
	Since int64 `json:"since,omitempty"`
}

// until is when the token is too old.
func (t continueToken) until() time.Time { return time.Unix(t.Since, 0).Add(pageLife) }

func encodeContinue(t continueToken) string {
	b, _ := json.Marshal(t) // cannot fail: plain fields
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeContinue(s string) (t continueToken, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(b, &t)
}

// expiredContinue is a 410 that lets the client go on with a list that is no longer of one revision.
func expiredContinue(start string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.Continue = encodeContinue(continueToken{Rev: -1, Start: start})
	return err
}

func expired(rev int64) error {
	return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", rev))
}

// parseRevision reads a resourceVersion; "" is 0.
func parseRevision(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	rev, err := strconv.ParseInt(s, 10, 64)
	if err != nil || rev < 0 {
		return 0, apierrors.NewBadRequest(fmt.Sprintf("Invalid value: %q: resourceVersion must be a number that the server gave", s))
	}
	return rev, nil
}

// metav1StatusTooLarge is what a client gets that asks for a revision from the future.
func metav1StatusTooLarge(want, have int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", want, have), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

const (
	pagesKept = 64
	pageLife  = 5 * time.Minute // as long as Kubernetes keeps revisions of etcd
)

// pageCache keeps the snapshots of lists that clients are reading page by page.
type pageCache struct {
	mu    sync.Mutex
	pages []page
	timer *time.Timer // for the end of the first that goes: an old snapshot may be all that keeps many objects alive
}

type page struct {
	table string
	snap  *store.Snapshot
	until time.Time
}

// keep keeps a snapshot until a time, or longer if another list of the same revision needs it longer.
func (c *pageCache) keep(table string, snap *store.Snapshot, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.pages, func(p page) bool { return p.table == table && p.snap.Rev == snap.Rev })
	if i >= 0 {
		if !c.pages[i].until.Before(until) {
			return
		}
		c.pages = slices.Delete(c.pages, i, i+1)
	}
	if len(c.pages) >= pagesKept {
		c.pages = slices.Delete(c.pages, 0, 1)
	}
	c.pages = append(c.pages, page{table, snap, until})
	if c.timer == nil {
		c.timer = time.AfterFunc(time.Until(until), c.expire)
	}
}

// expire drops the pages whose time is over.
func (c *pageCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.pages = slices.DeleteFunc(c.pages, func(p page) bool { return !p.until.After(now) })
	c.timer = nil
	if len(c.pages) > 0 {
		next := slices.MinFunc(c.pages, func(a, b page) int { return a.until.Compare(b.until) })
		c.timer = time.AfterFunc(next.until.Sub(now), c.expire)
	}
}

func (c *pageCache) find(table string, rev int64) *store.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pages {
		if p.table == table {
			if snap, ok := p.snap.At(rev); ok {
				return snap
			}
		}
	}
	return nil
}
