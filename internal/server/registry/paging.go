package registry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
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

// pageCache keeps the snapshots of lists that clients are reading page by page.
type pageCache struct {
	mu    sync.Mutex
	pages []page
}

type page struct {
	table string
	snap  *store.Snapshot
	until time.Time
}

func (c *pageCache) keep(table string, snap *store.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	kept := c.pages[:0]
	for _, p := range c.pages {
		if p.until.After(now) && (p.table != table || p.snap.Rev != snap.Rev) {
			kept = append(kept, p)
		}
	}
	if len(kept) >= pagesKept {
		kept = kept[1:]
	}
	clear(c.pages[len(kept):])
	c.pages = append(kept, page{table, snap, now.Add(pageLife)})
}

func (c *pageCache) find(table string, rev int64) *store.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pages {
		if p.table == table && p.snap.Rev == rev {
			return p.snap
		}
	}
	return nil
}
