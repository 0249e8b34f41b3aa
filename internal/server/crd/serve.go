package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Catalog is where resources join and leave: the registry.
type Catalog interface {
	// Exchange serves more in place of less, in one step; if it returns an error nothing has changed.
	Exchange(ctx context.Context, less, more []*api.Resource) error
}

// Server serves what the definitions in the store define. Make one with NewServer.
type Server struct {
	store      *store.Store
	catalog    Catalog
	converters func(def *apiextensionsv1.CustomResourceDefinition) Converter // nil: all convert by name alone
	log        *slog.Logger

	// What follows belongs to Run.
	forms  Forms
	served map[string]serving // by the definition's name
}

// serving is what one definition has in the catalogue.
type serving struct {
	edition   string
	resources []*api.Resource // none where the definition could not be served
}

// NewServer returns a Server that puts what the definitions in s define into catalog. converters returns what converts the objects of
// a definition, or nil where only the apiVersion changes.
func NewServer(s *store.Store, catalog Catalog, converters func(*apiextensionsv1.CustomResourceDefinition) Converter, log *slog.Logger) *Server {
	return &Server{store: s, catalog: catalog, converters: converters, log: log, served: map[string]serving{}}
}

// Run follows the definitions until ctx ends. It calls ready once those that there are at the beginning are served.
func (s *Server) Run(ctx context.Context, ready func()) error {
	select {
	case <-s.store.Ready():
	case <-ctx.Done():
		return nil
	}
	t := s.store.Table(api.CustomResourceDefinitions.Table())
	for {
		w, snap := t.WatchNow()
		present := map[string]*apiextensionsv1.CustomResourceDefinition{}
		for name := range s.served {
			present[name] = nil
		}
		snap.Ascend("", "", func(r *store.Revision) bool {
			present[r.Object.GetName()] = r.Object.(*apiextensionsv1.CustomResourceDefinition)
			return true
		})
		s.apply(ctx, present)
		if ready != nil {
			ready()
			ready = nil
		}
		err := s.take(ctx, w)
		w.Stop()
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, store.ErrTooOld):
			return fmt.Errorf("watching custom resource definitions: %w", err)
		}
	}
}

// take applies changes until the watch ends.
func (s *Server) take(ctx context.Context, w *store.Watcher) error {
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		changed := map[string]*apiextensionsv1.CustomResourceDefinition{}
		for _, e := range events {
			def := e.Revision.Object.(*apiextensionsv1.CustomResourceDefinition)
			if e.Type == store.Deleted {
				changed[def.Name] = nil
			} else {
				changed[def.Name] = def
			}
		}
		s.apply(ctx, changed)
	}
}

// change is what becomes of one definition's resources.
type change struct {
	name       string
	next       serving
	less, more []*api.Resource
}

// apply serves changed definitions, by name; those that are nil are no longer there. All go in one step; where that fails, each by itself,
// so that one definition that cannot be served is in nobody's way.
func (s *Server) apply(ctx context.Context, changed map[string]*apiextensionsv1.CustomResourceDefinition) {
	var changes []change
	var less, more []*api.Resource
	for name, def := range changed {
		if c, ok := s.plan(name, def); ok {
			changes = append(changes, c)
			less, more = append(less, c.less...), append(more, c.more...)
		}
	}
	if len(less)+len(more) == 0 {
		return
	}
	together := s.catalog.Exchange(ctx, less, more)
	slices.SortFunc(changes, func(a, b change) int { return len(a.more) - len(b.more) }) // what goes makes room
	for _, c := range changes {
		if together != nil {
			if err := s.catalog.Exchange(ctx, c.less, c.more); err != nil {
				s.log.Warn("a custom resource definition cannot be served", "definition", c.name, "err", err)
				continue
			}
		}
		if c.next.edition == "" {
			delete(s.served, c.name)
		} else {
			s.served[c.name] = c.next
		}
	}
}

// plan returns what changes in the catalogue when the definition of that name is def, which may be nil; ok is false where nothing does.
func (s *Server) plan(name string, def *apiextensionsv1.CustomResourceDefinition) (_ change, ok bool) {
	have := s.served[name]
	c := change{name: name, less: have.resources}
	if def == nil || !servable(def) {
		return c, have.edition != ""
	}
	c.next.edition = Edition(def)
	if c.next.edition == have.edition {
		return c, false
	}
	var converter Converter
	if s.converters != nil {
		converter = s.converters(def)
	}
	var err error
	if c.more, err = s.forms.Declare(def, converter); err != nil {
		s.log.Warn("a custom resource definition cannot be served", "definition", name, "err", err)
		c.next.edition = ""
	}
	c.next.resources = c.more
	return c, true
}

// servable reports whether a definition has the names that it wants, or had them once: it is served from then on.
func servable(def *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(def.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Status == apiextensionsv1.ConditionTrue && (c.Type == apiextensionsv1.NamesAccepted || c.Type == apiextensionsv1.Established)
	})
}
