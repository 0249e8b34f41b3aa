package call

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// maxBody is the largest request body, as in Kubernetes: twice what etcd takes, since JSON is larger than what is stored.
const maxBody = 3 << 20

// Body reads the request's body.
func (c *Call) Body() ([]byte, error) {
	if c.R.ContentLength > maxBody {
		return nil, errTooLarge()
	}
	b, err := io.ReadAll(http.MaxBytesReader(c.W, c.R.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errTooLarge()
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body of the request ended after %d bytes, but Content-Length announced %d: send it again in full", len(b), c.R.ContentLength))
	case err != nil:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body of the request could not be read: %v", err))
	}
	return b, nil
}

func errTooLarge() error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
}

// Decode reads the request's body as an object of kind gvk. Warnings go to the client.
func (c *Call) Decode(gvk schema.GroupVersionKind, into runtime.Object, validation string) (runtime.Object, error) {
	f, ok := wire.FormatOf(c.R.Header.Get("Content-Type"))
	if !ok {
		return nil, ErrUnsupportedMedia(wire.TypeJSON, wire.TypeYAML, wire.TypeProtobuf, wire.TypeCBOR)
	}
	b, err := c.Body()
	if err != nil {
		return nil, err
	}
	obj, warnings, err := c.Decoder.Decode(b, f, gvk, into, validation)
	if err != nil {
		return nil, err
	}
	c.Warn(warnings)
	return obj, nil
}

// Warn sends warnings along with the answer.
func (c *Call) Warn(warnings []string) {
	for _, w := range warnings {
		warning.AddWarning(c.R.Context(), "", w)
	}
}

// Parameters decodes the query into options.
func (c *Call) Parameters(options runtime.Object) error {
	if err := api.ParameterCodec.DecodeParameters(c.Query, schema.GroupVersion{Version: "v1"}, options); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// FieldValidation returns the client's wish, or Kubernetes' default.
func FieldValidation(v string) string {
	if v == "" {
		return metav1.FieldValidationWarn
	}
	return v
}
