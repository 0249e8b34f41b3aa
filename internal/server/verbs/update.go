package verbs

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// update replaces the object, or what its subresource writes, by the one in the body.
func (v *Verbs) update(c *call.Call) error {
	opts := metav1.UpdateOptions{}
	if err := c.Parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidateUpdateOptions(&opts); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("UpdateOptions"), "", errs)
	}
	wanted, err := decodeObject(c, call.FieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	if err := place(c, wanted); err != nil {
		return err
	}
	if err := named(c, wanted); err != nil {
		return err
	}
	transform := func(current api.Object) (api.Object, error) {
		if current == nil {
			if err := v.mayCreate(c); err != nil {
				return nil, err
			}
		}
		return wanted.DeepCopyObject().(api.Object), nil // the registry changes it, and may ask again
	}
	out, created, err := v.cfg.Registry.Update(c.R.Context(), c.Target.Res, c.Target.Key(), c.Target.Subresource, transform, registry.UpdateOptions{
		UpdateOptions: opts, Create: c.Target.Subresource == "" && c.Target.Res.CreateOnUpdate,
	})
	if err != nil {
		return err
	}
	if created {
		return v.written(c, http.StatusCreated, out)
	}
	return v.written(c, http.StatusOK, out)
}

// mayCreate checks that a user whose update or apply finds no object may create one.
func (v *Verbs) mayCreate(c *call.Call) error {
	a := authz.AttributesOf(&c.Target.Info)
	a.Verb = "create"
	return authz.Check(c.R.Context(), v.cfg.Authorizer, a)
}
