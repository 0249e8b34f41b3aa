package verbs

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// metaKind names the kind of request options in errors.
func metaKind(kind string) schema.GroupKind {
	return schema.GroupKind{Group: "meta.k8s.io", Kind: kind}
}

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

// deleteOptions reads the options of a deletion from the body, or from the query where there is none.
func deleteOptions(c *call.Call) (metav1.DeleteOptions, error) {
	opts := metav1.DeleteOptions{}
	b := c.Body()
	if len(b) == 0 {
		if err := c.Parameters(&opts); err != nil {
			return opts, err
		}
	} else {
		f, ok := wire.FormatOf(c.R.Header.Get("Content-Type"))
		if !ok {
			return opts, call.ErrUnsupportedMedia(wire.TypeJSON, wire.TypeYAML, wire.TypeProtobuf, wire.TypeCBOR)
		}
		if err := decodeDeleteOptions(c, b, f, &opts); err != nil {
			return opts, err
		}
	}
	if errs := metav1validation.ValidateDeleteOptions(&opts); len(errs) > 0 {
		return opts, apierrors.NewInvalid(metaKind("DeleteOptions"), "", errs)
	}
	return opts, nil
}

// decodeDeleteOptions accepts DeleteOptions as of any group, as clients send them: v1, policy/v1, the resource's own.
func decodeDeleteOptions(c *call.Call, b []byte, f wire.Format, into *metav1.DeleteOptions) error {
	var err error
	for _, gv := range []schema.GroupVersion{{Version: "v1"}, metav1.SchemeGroupVersion, c.Target.GV()} {
		*into = metav1.DeleteOptions{}
		_, _, e := c.Decoder.Decode(b, f, gv.WithKind("DeleteOptions"), into, metav1.FieldValidationIgnore)
		if e == nil {
			return nil
		}
		if err == nil {
			err = e
		}
	}
	return err
}

// delete removes an object or begins to.
func (v *Verbs) delete(c *call.Call) error {
	opts, err := deleteOptions(c)
	if err != nil {
		return err
	}
	obj, gone, err := v.cfg.Registry.Delete(c.R.Context(), c.Target.Res, c.Target.Key(), opts)
	if err != nil {
		return err
	}
	if !gone || c.Target.Res.AnswersDeleted {
		return v.written(c, http.StatusOK, obj)
	}
	c.Document(http.StatusOK, &metav1.Status{
		Status: metav1.StatusSuccess, Code: http.StatusOK,
		Details: &metav1.StatusDetails{Name: obj.GetName(), Group: c.Target.Group, Kind: c.Target.Resource, UID: obj.GetUID()},
	}, call.StatusKind)
	return nil
}

// deleteCollection deletes everything that the query selects and answers with it.
func (v *Verbs) deleteCollection(c *call.Call) error {
	listOpts, err := listOptions(c)
	if err != nil {
		return err
	}
	opts, err := collectionDeleteOptions(c)
	if err != nil {
		return err
	}
	objs, err := v.cfg.Registry.DeleteCollection(c.R.Context(), c.Target.Res, selection(c, listOpts), opts)
	if err != nil {
		return err
	}
	revs := make([]*store.Revision, len(objs))
	for i, o := range objs {
		revs[i] = &store.Revision{Object: o}
	}
	meta := metav1.ListMeta{ResourceVersion: v.cfg.Registry.Revision()}
	if c.Accept.As.Kind != "" {
		return sendTransformedList(c, revs, meta)
	}
	return sendList(c, revs, meta)
}

// collectionDeleteOptions drops preconditions, which speak of one object.
func collectionDeleteOptions(c *call.Call) (metav1.DeleteOptions, error) {
	opts, err := deleteOptions(c)
	opts.Preconditions = nil
	return opts, err
}
