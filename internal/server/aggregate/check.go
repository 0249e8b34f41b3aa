package aggregate

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// As kube-aggregator checks a backend: up to five times, since each question may go to another endpoint, and one good answer will do.
const (
	attempts      = 5
	attemptWithin = 5 * time.Second
	checkedWithin = 12 * time.Second
)

// Check returns an error unless the server that an APIService names answers for its group-version. Its connections are its own: it finds out
// what a new client would.
func (a *Aggregator) Check(ctx context.Context, s *apiregistrationv1.APIService) error {
	b := newBackend(a.cfg, s)
	defer b.close()
	ctx, cancel := context.WithTimeout(ctx, checkedWithin)
	defer cancel()
	var failed error
	for range attempts {
		err := b.check(ctx)
		if err == nil || b.broken != nil {
			return err
		}
		if failed == nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// check asks the backend once.
func (b *backend) check(ctx context.Context) error {
	if b.broken != nil {
		return b.broken
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWithin)
	defer cancel()
	u := b.at
	u.Path = b.path()
	got, err := b.ask(ctx, aggregatorUser, http.MethodGet, u.Path, http.Header{})
	if err == nil && (got.code < 200 || got.code > 299) {
		err = fmt.Errorf("bad status from %v: %d", &u, got.code)
	}
	if err != nil {
		return fmt.Errorf("failing or missing response from %v: %w", &u, err)
	}
	return nil
}
