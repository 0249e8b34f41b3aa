package verbs

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/store"
)

// create stores the object in the body.
func (v *Verbs) create(c *call.Call) error {
	opts := metav1.CreateOptions{}
	if err := c.Parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("CreateOptions"), "", errs)
	}
	obj, err := decodeObject(c, call.FieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	if err := place(c, obj); err != nil {
		return err
	}
	out, err := v.cfg.Registry.Create(c.R.Context(), c.Target.Res, obj, opts)
	if err != nil {
		return err
	}
	return v.written(c, http.StatusCreated, out)
}

// place puts an object where the URL says, or refuses it if it says otherwise itself.
func place(c *call.Call, obj api.Object) error {
	if !c.Target.Res.Namespaced {
		return nil // the registry refuses a namespace
	}
	switch obj.GetNamespace() {
	case "":
		obj.SetNamespace(c.Target.Namespace)
	case c.Target.Namespace:
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the provided object does not match the namespace sent on the request (%s vs %s)", obj.GetNamespace(), c.Target.Namespace))
	}
	return nil
}

// named refuses an object whose name is not that of the URL.
func named(c *call.Call, obj api.Object) error {
	switch obj.GetName() {
	case c.Target.Name:
	case "":
		return apierrors.NewBadRequest("name must be provided in the object, as in the URL: " + c.Target.Name)
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.Target.Name))
	}
	return nil
}

// written answers with an object that a write returned, from the shared bytes of its revision if it is still the newest.
func (v *Verbs) written(c *call.Call, code int, obj api.Object) error {
	if rev, err := v.cfg.Registry.Get(c.R.Context(), c.Target.Res, api.KeyOf(obj)); err == nil && rev.Object == store.Object(obj) {
		return sendObject(c, code, obj, rev)
	}
	return sendObject(c, code, obj, nil)
}
