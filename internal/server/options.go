package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metainternalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/wire"
	"k8s.io/apiserver/pkg/warning"
)

// maxBody is the largest request body, as in Kubernetes: twice what etcd takes, since JSON is larger than what is stored.
const maxBody = 3 << 20

// body reads the request's body.
func (x *exchange) body() ([]byte, error) {
	if x.r.ContentLength > maxBody {
		return nil, errTooLarge()
	}
	b, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errTooLarge()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body of the request ended after %d bytes, but Content-Length announced %d: send it again in full", len(b), x.r.ContentLength))
	case err != nil:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body of the request could not be read: %v", err))
	}
	return b, nil
}

func errTooLarge() error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
}

// decode reads the request's body as an object of kind gvk. Warnings go to the client.
func (x *exchange) decode(gvk schema.GroupVersionKind, into runtime.Object, validation string) (runtime.Object, error) {
	f, ok := wire.FormatOf(x.r.Header.Get("Content-Type"))
	if !ok {
		return nil, errUnsupportedMedia(wire.TypeJSON, wire.TypeYAML, wire.TypeProtobuf, wire.TypeCBOR)
	}
	b, err := x.body()
	if err != nil {
		return nil, err
	}
	obj, warnings, err := x.s.decoder.Decode(b, f, gvk, into, validation)
	if err != nil {
		return nil, err
	}
	x.warn(warnings)
	return obj, nil
}

func (x *exchange) warn(warnings []string) {
	for _, w := range warnings {
		warning.AddWarning(x.r.Context(), "", w)
	}
}

// decodeObject reads an object of the target's resource and returns it as it is stored, without its TypeMeta, which the store
// does not keep.
func (x *exchange) decodeObject(validation string) (api.Object, error) {
	empty, err := api.Scheme.New(x.t.kind())
	if err != nil {
		return nil, err
	}
	obj, err := x.decode(x.t.kind(), empty, validation)
	if err != nil {
		return nil, err
	}
	return x.stored(obj)
}

// stored turns an object in the client's version into the stored one.
func (x *exchange) stored(obj runtime.Object) (api.Object, error) {
	out, err := api.Convert(obj, x.t.Res.GroupVersion())
	if err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return out.(api.Object), nil
}

// fieldValidation returns the client's wish, or Kubernetes' default.
func fieldValidation(v string) string {
	if v == "" {
		return metav1.FieldValidationWarn
	}
	return v
}

// parameters decodes the query into options.
func (x *exchange) parameters(options runtime.Object) error {
	if err := api.ParameterCodec.DecodeParameters(x.q, schema.GroupVersion{Version: "v1"}, options); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// listOptions reads and checks the query of a list, watch or deletecollection.
func (x *exchange) listOptions() (*metainternal.ListOptions, error) {
	opts := &metainternal.ListOptions{}
	if err := metainternalscheme.ParameterCodec.DecodeParameters(x.q, metav1.SchemeGroupVersion, opts); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if x.t.Verb == "watch" {
		opts.Watch = true
	}
	if errs := metainternalvalidation.ValidateListOptions(opts, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "ListOptions"}, "", errs)
	}
	if x.t.Name != "" { // /watch/.../NAME
		byName := fields.OneTermEqualSelector("metadata.name", x.t.Name)
		if opts.FieldSelector != nil && !opts.FieldSelector.Empty() {
			byName = fields.AndSelectors(byName, opts.FieldSelector)
		}
		opts.FieldSelector = byName
	}
	return opts, nil
}

// manager is the name under which a write is recorded: the client's, or its user agent's first word.
func (x *exchange) manager(named string) string {
	if named != "" {
		return named
	}
	agent := x.r.UserAgent()
	for i, c := range agent {
		if c == '/' {
			agent = agent[:i]
			break
		}
	}
	if len(agent) > 128 {
		agent = agent[:128]
	}
	return agent
}
