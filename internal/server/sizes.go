package server

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

const (
	// meanOf is of how many objects the mean is taken, meanFor how long it is believed.
	meanOf  = 8
	meanFor = time.Minute
)

// sizes tell how large the objects of resources are, and how many there are.
type sizes struct {
	registry *registry.Registry

	mu    sync.Mutex
	means map[schema.GroupResource]mean
}

type mean struct {
	bytes float64
	until time.Time
}

func newSizes(r *registry.Registry) *sizes {
	return &sizes{registry: r, means: map[schema.GroupResource]mean{}}
}

func (s *sizes) find(of *request.Info) (*api.Resource, bool) {
	return s.registry.Served().Now().Find(schema.GroupVersionResource{Group: of.Group, Version: of.Version, Resource: of.Resource})
}

// Mean implements fair.Sizes, by a few objects of each resource, in the form in which they are stored.
func (s *sizes) Mean(of *request.Info) float64 {
	res, ok := s.find(of)
	if !ok {
		return 0
	}
	now := time.Now()
	s.mu.Lock()
	known := s.means[res.GroupResource()]
	s.mu.Unlock()
	if now.Before(known.until) {
		return known.bytes
	}
	n, bytes := 0, 0
	s.registry.Table(res).Snapshot().Ascend("", "", func(r *store.Revision) bool {
		if b, err := res.Encode(r.Object); err == nil {
			n, bytes = n+1, bytes+len(b)
		}
		return n < meanOf
	})
	if n == 0 {
		return 0 // until there is one
	}
	known = mean{float64(bytes) / float64(n), now.Add(meanFor)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.means[res.GroupResource()] = known
	return known.bytes
}

// Count implements fair.Sizes.
func (s *sizes) Count(of *request.Info, most int) int {
	res, ok := s.find(of)
	if !ok {
		return 0
	}
	if of.Namespace == "" || !res.Namespaced {
		return s.registry.Count(res)
	}
	n := 0
	s.registry.Table(res).Snapshot().Ascend(of.Namespace+"/", "", func(*store.Revision) bool {
		n++
		return n < most
	})
	return n
}
