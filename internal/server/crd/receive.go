package crd

import (
	"fmt"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/knarr-io/knarr/internal/api"
)

// errSchema is the answer to requests for objects whose schema does not compile. Validation refuses such definitions; they come
// from a store that another release wrote.
func errSchema(err error) error {
	return apierrors.NewInternalError(fmt.Errorf("the server could not properly serve the CR schema: %w", err))
}

// receive drops what a client sent and the schema does not have, in place, and checks the metadata: of the object, and of those
// embedded in it. It returns the fields that it dropped, as warnings.
func (f *form) receive(u *unstructured.Unstructured) ([]string, error) {
	s, err := f.compiled()
	if err != nil {
		return nil, errSchema(err)
	}
	dropped, err := fit(u, s, f.loose, true)
	for i, path := range dropped {
		dropped[i] = fmt.Sprintf("unknown field %q", path)
	}
	return dropped, err
}

// restore makes an object of what was stored, in place: as receive, but nothing is refused - what does not fit is dropped -
// and defaults are filled in, as there may be some that are newer than the object.
func (f *form) restore(u *unstructured.Unstructured) {
	s, err := f.compiled()
	if err != nil {
		return // it can still be read and deleted
	}
	if _, err := fit(u, s, f.loose, false); err != nil {
		return
	}
	defaulting.Default(u.Object, s)
}

// reshape makes an object that was converted to this version fit its schema, in place.
func (f *form) reshape(u *unstructured.Unstructured) error {
	s, err := f.compiled()
	if err != nil {
		return errSchema(err)
	}
	_, err = fit(u, s, f.loose, true)
	return err
}

// fit gives u the shape of a schema. Strictly, it refuses metadata that cannot be read and returns the paths of what it drops;
// otherwise it drops the metadata, too.
func fit(u *unstructured.Unstructured, s *structural.Structural, loose, strict bool) (dropped []string, err error) {
	apiVersion, kind := u.GetAPIVersion(), u.GetKind()
	meta, found, dropped, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{
		DropMalformedFields: !strict, ReturnUnknownFieldPaths: strict,
	})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if !loose && s != nil {
		paths := pruning.PruneWithOptions(u.Object, s, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: strict})
		dropped = append(dropped, paths...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s)
	}
	fault, paths := objectmeta.CoerceWithOptions(nil, u.Object, s, false, objectmeta.CoerceOptions{
		DropInvalidFields: !strict, ReturnUnknownFieldPaths: strict,
	})
	if fault != nil {
		return nil, apierrors.NewBadRequest(fault.Error())
	}
	dropped = append(dropped, paths...)
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	if !found {
		return dropped, nil
	}
	if !strict && meta.Generation == 0 {
		meta.Generation = 1 // of objects older than the field
	}
	return dropped, objectmeta.SetObjectMeta(u.Object, meta)
}

// fill sets defaults, in place.
func (f *form) fill(obj api.Object) {
	if s, err := f.compiled(); err == nil {
		defaulting.Default(obj.(*unstructured.Unstructured).Object, s)
	}
}
