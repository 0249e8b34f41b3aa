package call

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// ErrNoPath is the answer for paths that the server does not have.
func ErrNoPath() error {
	err := apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, true)
	err.ErrStatus.Message = "the server could not find the requested resource"
	err.ErrStatus.Details = nil
	return err
}

// ErrMethod is the answer for verbs that a resource does not have.
func ErrMethod(t *Target) error {
	resource := t.Resource
	if t.Subresource != "" {
		resource += "/" + t.Subresource
	}
	err := apierrors.NewMethodNotSupported(schema.GroupResource{Group: t.Group, Resource: t.Resource}, t.Verb)
	err.ErrStatus.Message = fmt.Sprintf("%s is not supported on resources of kind %q", t.Verb, (schema.GroupResource{Group: t.Group, Resource: resource}).String())
	return err
}

// ErrNotAcceptable is the answer to an Accept header that names nothing the server has.
func ErrNotAcceptable(without ...wire.Format) error {
	var offered []string
	for _, f := range []wire.Format{wire.JSON, wire.YAML, wire.Protobuf, wire.CBOR} {
		if !slices.Contains(without, f) {
			offered = append(offered, f.MediaType())
		}
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + strings.Join(offered, ", "),
	}}
}

// ErrUnsupportedMedia is the answer to a body in a format that is none of those accepted.
func ErrUnsupportedMedia(accepted ...string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(accepted, ", "),
	}}
}

// StatusOf returns err as an API status; errors that are none are the server's own.
func StatusOf(err error) *apierrors.StatusError {
	var st *apierrors.StatusError
	if errors.As(err, &st) {
		return st
	}
	return apierrors.NewInternalError(err)
}
