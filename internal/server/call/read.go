package call

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

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

// Receive reads the request's body, in pieces of which grow hears before room is made for them; its error ends the reading.
func (c *Call) Receive(grow func(n int) error) error {
	if c.R.ContentLength > maxBody {
		return errTooLarge()
	}
	b, r := []byte(nil), http.MaxBytesReader(c.W, c.R.Body, maxBody)
	for {
		if len(b) == cap(b) {
			more := max(512, len(b))
			if left := int(c.R.ContentLength) - len(b); left > 0 {
				more = min(more, left) + 1
			}
			if err := grow(more); err != nil {
				return err
			}
			b = append(make([]byte, 0, len(b)+more), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case err == io.EOF:
			c.body, c.R.Body = b, io.NopCloser(bytes.NewReader(b))
			return nil
		case errors.As(err, &tooLarge):
			return errTooLarge()
		case errors.Is(err, io.ErrUnexpectedEOF):
			return apierrors.NewBadRequest(fmt.Sprintf("the body of the request ended after %d bytes, but Content-Length announced %d: send it again in full", len(b), c.R.ContentLength))
		case errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case err != nil:
			return apierrors.NewBadRequest(fmt.Sprintf("the body of the request could not be read: %v", err))
		}
	}
}

// Body is the request's body, as far as the gate has received one.
func (c *Call) Body() []byte { return c.body }

func errTooLarge() error {
	return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
}

// Decode reads the request's body as an object of kind gvk. Warnings go to the client.
func (c *Call) Decode(gvk schema.GroupVersionKind, into runtime.Object, validation string) (runtime.Object, error) {
	f, ok := wire.FormatOf(c.R.Header.Get("Content-Type"))
	_, custom := into.(runtime.Unstructured)
	switch {
	case custom && (!ok || f == wire.Protobuf):
		return nil, ErrUnsupportedMedia(wire.TypeJSON, wire.TypeYAML, wire.TypeCBOR)
	case !ok:
		return nil, ErrUnsupportedMedia(wire.TypeJSON, wire.TypeYAML, wire.TypeProtobuf, wire.TypeCBOR)
	}
	obj, warnings, err := c.Decoder.Decode(c.Body(), f, gvk, into, validation)
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
