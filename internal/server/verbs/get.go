package verbs

import (
	"net/http"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/store"
)

// get answers with one object.
func (v *Verbs) get(c *call.Call) error {
	rev, err := v.cfg.Registry.Get(c.R.Context(), c.Target.Res, c.Target.Key())
	if err != nil {
		return err
	}
	revs, err := own(c, []*store.Revision{rev})
	if err != nil {
		return err
	}
	return sendObject(c, http.StatusOK, revs[0].Object, revs[0])
}
