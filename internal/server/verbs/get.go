package verbs

import (
	"net/http"

	"github.com/knarr-io/knarr/internal/server/call"
)

// get answers with one object.
func (v *Verbs) get(c *call.Call) error {
	rev, err := v.cfg.Registry.Get(c.R.Context(), c.Target.Res, c.Target.Key())
	if err != nil {
		return err
	}
	return sendObject(c, http.StatusOK, rev.Object, rev)
}
