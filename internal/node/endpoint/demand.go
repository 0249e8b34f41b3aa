package endpoint

import (
	"context"
	"net/http"
	"time"

	"github.com/knarr-io/knarr/internal/node/demand"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// RecordDemand notes once a minute what the pods of the node used since, until ctx ends.
func (e *Endpoint) RecordDemand(ctx context.Context) {
	t := time.NewTicker(demand.Period)
	defer t.Stop()
	var last *stats.Sample
	for {
		s, err := e.stats.Counters(ctx)
		if err != nil {
			last = nil // a minute without a figure is left out
		} else {
			if last != nil {
				e.demand.Add(stats.PodUsage(stats.Pair{Old: last, New: s}), s.At)
			}
			last = s
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (e *Endpoint) serveDemand(w http.ResponseWriter, _ *http.Request) error {
	return sendJSON(w, e.demand.Uses())
}
