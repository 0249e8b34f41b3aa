package verbs

import (
	"encoding/json"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

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

// decodeDeleteOptions accepts DeleteOptions as of any group, as clients send them: v1, policy/v1, the resource's own - of a custom resource, too,
// whose groups the scheme does not know.
func decodeDeleteOptions(c *call.Call, b []byte, f wire.Format, into *metav1.DeleteOptions) error {
	if own := c.Target.GV(); f == wire.JSON && !api.Scheme.IsGroupRegistered(own.Group) {
		var said metav1.TypeMeta
		if json.Unmarshal(b, &said) == nil && said.APIVersion == own.String() && said.Kind == "DeleteOptions" {
			return jsonDeleteOptions(c, b, into)
		}
	}
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

// jsonDeleteOptions decodes DeleteOptions whose version is that of a custom resource.
func jsonDeleteOptions(c *call.Call, b []byte, into *metav1.DeleteOptions) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return apierrors.NewBadRequest("DeleteOptions: " + err.Error())
	}
	delete(fields, "apiVersion")
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	_, _, err = c.Decoder.Decode(b, wire.JSON, schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}, into, metav1.FieldValidationIgnore)
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
		revs, err := own(c, []*store.Revision{{Object: obj}})
		if err != nil {
			return err
		}
		return v.written(c, http.StatusOK, revs[0].Object)
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
	if revs, err = own(c, revs); err != nil {
		return err
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
