package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/openapi"
)

// documented is what a backend documents.
type documented struct {
	etag string
	v2   *openapi.Document // of all that it serves; nil where it has none
	// location is where it has the document of its group-version in version 3, with the hash of the content; empty where it has none.
	location string
}

// documentsWithin is how long a backend may take to make its documents.
const documentsWithin = time.Minute

// documentAll asks all backends for their documents, and reports whether all that are available have answered.
func (a *Aggregator) documentAll(ctx context.Context) bool {
	ok := a.each(func(b *backend) bool {
		if !b.available {
			return true
		}
		ctx, cancel := context.WithTimeout(ctx, documentsWithin)
		defer cancel()
		now, err := b.documents(ctx, b.documented.Load())
		if err != nil {
			a.cfg.Log.Debug("an aggregated server does not document what it serves", "apiservice", b.name, "err", err)
			return false
		}
		b.documented.Store(now)
		return true
	})
	a.publishNew()
	return ok
}

// documents asks the backend for its documents. A backend may have none in either version.
func (b *backend) documents(ctx context.Context, old *documented) (*documented, error) {
	out := &documented{}
	header := http.Header{"Accept": {"application/json"}}
	if old != nil && old.etag != "" {
		header.Set("If-None-Match", old.etag)
	}
	got, err := b.ask(ctx, aggregatorUser, http.MethodGet, "/openapi/v2", header)
	switch {
	case err != nil:
		return nil, err
	case got.code == http.StatusNotModified && old != nil:
		out.etag, out.v2 = old.etag, old.v2
	case got.code == http.StatusOK:
		out.etag = got.header.Get("Etag")
		if out.v2, err = openapi.Part(got.body, b.path()+"/"); err != nil {
			return nil, fmt.Errorf("its OpenAPI document: %w", err)
		}
		if old != nil && old.v2 != nil && old.v2.Hash == out.v2.Hash {
			out.v2 = old.v2
		}
	case got.code != http.StatusNotFound:
		return nil, fmt.Errorf("it answered %d for its OpenAPI document", got.code)
	}
	got, err = b.ask(ctx, aggregatorUser, http.MethodGet, "/openapi/v3", http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if got.code == http.StatusOK {
		if out.location, err = locate(got.body, strings.TrimPrefix(b.path(), "/")); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// locate returns where a backend's index has the document of a path. What leads elsewhere than below /openapi/v3/ is no document of its own.
func locate(index []byte, path string) (string, error) {
	var list struct {
		Paths map[string]struct {
			ServerRelativeURL string `json:"serverRelativeURL"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(index, &list); err != nil {
		return "", fmt.Errorf("its list of OpenAPI documents: %w", err)
	}
	at := list.Paths[path].ServerRelativeURL
	if u, err := url.Parse(at); err != nil || u.Host != "" || u.Path != "/openapi/v3/"+path {
		return "", nil
	}
	return at, nil
}

// Document hands a call for an OpenAPI document of version 3 to the backend whose document it is. It reports whether there is one.
func (a *Aggregator) Document(c *call.Call, path string) bool {
	for _, b := range a.all() {
		if "openapi/v3"+b.path() != path {
			continue
		}
		if !b.available || b.broken != nil {
			return false
		}
		b.pass(c)
		return true
	}
	return false
}
