package verbs

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// absent are kinds of Kubernetes 1.37 that Knarr does not serve. There are none of them, and that is what a list answers: tools
// that go through many kinds (kubectl cluster-info dump, kubectl apply --prune) stop at the first error. Whoever wants to write
// one is told that the kind is absent. A kind that has been declared in package api is served, whatever stands here.
var absent = map[schema.GroupVersion][]kindOf{
	{Group: "resource.k8s.io", Version: "v1"}: {
		{"deviceclasses", "DeviceClass", false}, {"devicetaintrules", "DeviceTaintRule", false}, {"resourceclaims", "ResourceClaim", true},
		{"resourceclaimtemplates", "ResourceClaimTemplate", true}, {"resourceslices", "ResourceSlice", false}},
}

type kindOf struct {
	plural, kind string
	namespaced   bool
}

// findAbsent returns the declaration of a kind that is not served.
func findAbsent(gv schema.GroupVersion, plural string) *api.Resource {
	for _, k := range absent[gv] {
		if k.plural == plural {
			return &api.Resource{GroupVersionKind: gv.WithKind(k.kind), Plural: plural, Namespaced: k.namespaced}
		}
	}
	return nil
}

// absent answers for a kind that is not served.
func (v *Verbs) absent(c *call.Call) error {
	t := c.Target
	switch {
	case t.Subresource != "":
		return errAbsent(t)
	case t.Verb == "get":
		return apierrors.NewNotFound(t.GroupResource(), t.Name)
	case t.Verb != "list" && t.Verb != "watch":
		return errAbsent(t)
	}
	_, typed := api.Scheme.AllKnownTypes()[t.Kind()]
	if err := c.Negotiate(func(a wire.Accepted) bool { return typed && offers(t)(a) }); err != nil {
		return err
	}
	opts, err := listOptions(c)
	switch {
	case err != nil:
		return err
	case opts.Watch && typed:
		return v.watchNothing(c)
	case opts.Watch:
		return errAbsent(t)
	case !typed:
		c.Accept.Format = wire.JSON
		return c.JSON(map[string]any{"kind": t.ListKind().Kind, "apiVersion": t.GV().String(),
			"metadata": metav1.ListMeta{ResourceVersion: v.cfg.Registry.Revision()}, "items": []any{}})
	}
	meta := metav1.ListMeta{ResourceVersion: v.cfg.Registry.Revision()}
	if c.Accept.As.Kind != "" {
		return sendTransformedList(c, nil, meta)
	}
	return sendList(c, nil, meta)
}

// watchNothing is the watch of a kind that is not served: it says where it begins, and nothing happens.
func (v *Verbs) watchNothing(c *call.Call) error {
	opts, err := listOptions(c)
	if err != nil {
		return err
	}
	contentType, ok := wire.StreamType(c.Accept.Format)
	if !ok {
		return call.ErrNotAcceptable()
	}
	out := begin(c, contentType)
	if opts.SendInitialEvents != nil && *opts.SendInitialEvents && opts.AllowWatchBookmarks {
		rev, err := strconv.ParseInt(v.cfg.Registry.Revision(), 10, 64)
		if err != nil {
			return out.end(err)
		}
		if err := out.bookmark(rev, map[string]string{metav1.InitialEventsAnnotationKey: "true"}); err != nil {
			return out.end(err)
		}
	}
	if err := out.flush(); err != nil {
		return nil
	}
	c.HasBegun()
	ctx, cancel := context.WithTimeout(c.R.Context(), life(opts))
	defer cancel()
	<-ctx.Done()
	return nil
}

// errAbsent is the answer to who wants to do something with a kind that is not served.
func errAbsent(t *call.Target) error {
	err := apierrors.NewGenericServerResponse(http.StatusNotFound, t.Verb, t.GroupResource(), t.Name, "", 0, true)
	err.ErrStatus.Message = fmt.Sprintf("Knarr does not serve %s (%s): its README says what is not there yet", t.Res.Kind, t.GV())
	return err
}
