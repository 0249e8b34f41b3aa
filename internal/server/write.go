package server

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// metaKind names the kind of request options in errors.
func metaKind(kind string) schema.GroupKind {
	return schema.GroupKind{Group: "meta.k8s.io", Kind: kind}
}

// create stores the object in the body.
func (x *exchange) create() error {
	opts := metav1.CreateOptions{}
	if err := x.parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("CreateOptions"), "", errs)
	}
	obj, err := x.decodeObject(fieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	if err := x.place(obj); err != nil {
		return err
	}
	if obj, err = x.s.managers.Update(x.t.Res.GroupVersionKind, "", nil, obj, x.manager(opts.FieldManager)); err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	out, err := x.s.cfg.Registry.Create(x.r.Context(), x.t.Res, obj, opts)
	if err != nil {
		return err
	}
	return x.written(http.StatusCreated, out)
}

// place puts an object where the URL says, or refuses it if it says otherwise itself.
func (x *exchange) place(obj api.Object) error {
	if !x.t.Res.Namespaced {
		return nil // the registry refuses a namespace
	}
	switch obj.GetNamespace() {
	case "":
		obj.SetNamespace(x.t.Namespace)
	case x.t.Namespace:
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the provided object does not match the namespace sent on the request (%s vs %s)", obj.GetNamespace(), x.t.Namespace))
	}
	return nil
}

// named refuses an object whose name is not that of the URL.
func (x *exchange) named(obj api.Object) error {
	switch obj.GetName() {
	case x.t.Name:
	case "":
		return apierrors.NewBadRequest("name must be provided in the object, as in the URL: " + x.t.Name)
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), x.t.Name))
	}
	return nil
}

// written answers with an object that a write returned, from the shared bytes of its revision if it is still the newest.
func (x *exchange) written(code int, obj api.Object) error {
	if rev, err := x.s.cfg.Registry.Get(x.r.Context(), x.t.Res, api.KeyOf(obj)); err == nil && rev.Object == store.Object(obj) {
		return x.object(code, obj, rev)
	}
	return x.object(code, obj, nil)
}

// update replaces the object, or what its subresource writes, by the one in the body.
func (x *exchange) update() error {
	opts := metav1.UpdateOptions{}
	if err := x.parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidateUpdateOptions(&opts); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("UpdateOptions"), "", errs)
	}
	wanted, err := x.decodeObject(fieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	if err := x.place(wanted); err != nil {
		return err
	}
	if err := x.named(wanted); err != nil {
		return err
	}
	manager := x.manager(opts.FieldManager)
	transform := func(current api.Object) (api.Object, error) {
		if current == nil {
			if err := x.mayCreate(); err != nil {
				return nil, err
			}
		}
		obj := wanted.DeepCopyObject().(api.Object) // the registry changes it, and may ask again
		return x.record(current, obj, manager)
	}
	out, created, err := x.s.cfg.Registry.Update(x.r.Context(), x.t.Res, x.t.key(), x.t.Subresource, transform, registry.UpdateOptions{
		UpdateOptions: opts, Create: x.t.Subresource == "" && createOnUpdate[x.t.Res.Kind],
	})
	if err != nil {
		return err
	}
	if created {
		return x.written(http.StatusCreated, out)
	}
	return x.written(http.StatusOK, out)
}

// createOnUpdate are the kinds that Kubernetes lets a PUT create.
var createOnUpdate = map[string]bool{
	"Endpoints": true, "Event": true, "Lease": true, "LimitRange": true, "RuntimeClass": true, "Service": true,
	"ClusterRole": true, "ClusterRoleBinding": true, "Role": true, "RoleBinding": true,
}

// mayCreate checks that a user whose update or apply finds no object may create one.
func (x *exchange) mayCreate() error {
	a := authz.AttributesOf(&x.t.Info)
	a.Verb = "create"
	return authz.Check(x.r.Context(), x.s.cfg.Authorizer, a)
}

// record keeps managedFields for a write of obj over current and returns obj without its TypeMeta.
func (x *exchange) record(current, obj api.Object, manager string) (api.Object, error) {
	obj, err := x.s.managers.Update(x.t.Res.GroupVersionKind, x.t.Subresource, current, obj, manager)
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj, nil
}

// deleteOptions reads the options of a deletion from the body, or from the query where there is none.
func (x *exchange) deleteOptions() (metav1.DeleteOptions, error) {
	opts := metav1.DeleteOptions{}
	b, err := x.body()
	if err != nil {
		return opts, err
	}
	if len(b) == 0 {
		if err := x.parameters(&opts); err != nil {
			return opts, err
		}
	} else {
		f, ok := wire.FormatOf(x.r.Header.Get("Content-Type"))
		if !ok {
			return opts, errUnsupportedMedia(wire.TypeJSON, wire.TypeYAML, wire.TypeProtobuf, wire.TypeCBOR)
		}
		if err := x.decodeDeleteOptions(b, f, &opts); err != nil {
			return opts, err
		}
	}
	if errs := metav1validation.ValidateDeleteOptions(&opts); len(errs) > 0 {
		return opts, apierrors.NewInvalid(metaKind("DeleteOptions"), "", errs)
	}
	return opts, nil
}

// decodeDeleteOptions accepts DeleteOptions as of any group, as clients send them: v1, policy/v1, the resource's own.
func (x *exchange) decodeDeleteOptions(b []byte, f wire.Format, into *metav1.DeleteOptions) error {
	var err error
	for _, gv := range []schema.GroupVersion{{Version: "v1"}, metav1.SchemeGroupVersion, x.t.gv()} {
		*into = metav1.DeleteOptions{}
		_, _, e := x.s.decoder.Decode(b, f, gv.WithKind("DeleteOptions"), into, metav1.FieldValidationIgnore)
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
func (x *exchange) delete() error {
	opts, err := x.deleteOptions()
	if err != nil {
		return err
	}
	obj, gone, err := x.s.cfg.Registry.Delete(x.r.Context(), x.t.Res, x.t.key(), opts)
	if err != nil {
		return err
	}
	if !gone || returnsDeleted(x.t.Res) {
		return x.written(http.StatusOK, obj)
	}
	x.document(http.StatusOK, &metav1.Status{
		Status: metav1.StatusSuccess, Code: http.StatusOK,
		Details: &metav1.StatusDetails{Name: obj.GetName(), Group: x.t.Group, Kind: x.t.Resource, UID: obj.GetUID()},
	}, statusKind)
	return nil
}

// returnsDeleted names the resources whose deletion is answered with the object rather than with a Status.
func returnsDeleted(res *api.Resource) bool {
	switch res {
	case api.Pods, api.Services, api.ServiceAccounts, api.ResourceQuotas, api.PodTemplates, api.PersistentVolumes, api.PersistentVolumeClaims:
		return true
	}
	return false
}

// deleteCollection deletes everything that the query selects and answers with it.
func (x *exchange) deleteCollection() error {
	listOpts, err := x.listOptions()
	if err != nil {
		return err
	}
	opts, err := x.collectionDeleteOptions(listOpts)
	if err != nil {
		return err
	}
	objs, err := x.s.cfg.Registry.DeleteCollection(x.r.Context(), x.t.Res, x.selection(listOpts), opts)
	if err != nil {
		return err
	}
	revs := make([]*store.Revision, len(objs))
	for i, o := range objs {
		revs[i] = &store.Revision{Object: o}
	}
	meta := metav1.ListMeta{ResourceVersion: x.s.cfg.Registry.Revision()}
	if x.accept.As.Kind != "" {
		return x.transformedList(revs, meta)
	}
	return x.plainList(revs, meta)
}

// collectionDeleteOptions drops preconditions, which speak of one object.
func (x *exchange) collectionDeleteOptions(*metainternal.ListOptions) (metav1.DeleteOptions, error) {
	opts, err := x.deleteOptions()
	opts.Preconditions = nil
	return opts, err
}
