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
}

func encodeContinue(rev int64, start string) string {
	b, _ := json.Marshal(continueToken{rev, start}) // cannot fail: two plain fields
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeContinue(s string) (int64, string, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, "", err
	}
	var t continueToken
	if err := json.Unmarshal(b, &t); err != nil {
		return 0, "", err
	}
	return t.Rev, t.Start, nil
}

// expiredContinue is a 410 that lets the client go on with a list that is no longer of one revision.
func expiredContinue(start string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.Continue = encodeContinue(-1, start)
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

// pageCache keeps the snapshots of lists that clients are reading page by page, oldest first.
type pageCache struct {
	mu    sync.Mutex
	pages []page
	timer *time.Timer // for the oldest page's end: an old snapshot may be all that keeps many objects alive
}

type page struct {
	table string
	snap  *store.Snapshot
	until time.Time
}

func (c *pageCache) keep(table string, snap *store.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages = slices.DeleteFunc(c.pages, func(p page) bool { return p.table == table && p.snap.Rev == snap.Rev })
	if len(c.pages) >= pagesKept {
		c.pages = slices.Delete(c.pages, 0, 1)
	}
	c.pages = append(c.pages, page{table, snap, time.Now().Add(pageLife)})
	if c.timer == nil {
		c.timer = time.AfterFunc(pageLife, c.expire)
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
		c.timer = time.AfterFunc(c.pages[0].until.Sub(now), c.expire)
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
