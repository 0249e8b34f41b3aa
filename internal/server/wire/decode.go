package wire

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Decoder reads request bodies into the Go types of a scheme. Nothing is defaulted or converted.
type Decoder struct {
	scheme *runtime.Scheme
	bounds Bounds
	strict map[Format]runtime.Decoder
	loose  map[Format]runtime.Decoder
}

// NewDecoder returns a Decoder for the types of scheme.
func NewDecoder(scheme *runtime.Scheme) *Decoder {
	text := func(yaml, strict bool) runtime.Decoder {
		return kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme, scheme, kjson.SerializerOptions{Yaml: yaml, Strict: strict})
	}
	proto := protobuf.NewSerializer(scheme, scheme)
	return &Decoder{
		scheme: scheme,
		bounds: StandardBounds(),
		strict: map[Format]runtime.Decoder{JSON: text(false, true), YAML: text(true, true), Protobuf: proto, CBOR: cbor.NewSerializer(scheme, scheme, cbor.Strict(true))},
		loose:  map[Format]runtime.Decoder{JSON: text(false, false), YAML: text(true, false), Protobuf: proto, CBOR: cbor.NewSerializer(scheme, scheme)},
	}
}

// Decode reads body into into, an empty object of kind gvk. validation is the request's fieldValidation: Strict refuses
// unknown and duplicate fields, Warn returns them as warnings, Ignore does not look. A body without apiVersion and kind
// is taken for gvk; one of another kind is refused. The error is the status to answer with.
func (d *Decoder) Decode(body []byte, f Format, gvk schema.GroupVersionKind, into runtime.Object, validation string) (obj runtime.Object, warnings []string, err error) {
	switch f { // CBOR's decoder has bounds of its own
	case JSON:
		err = d.bounds.JSON(body)
	case YAML:
		err = d.bounds.YAML(body)
	}
	if err != nil {
		return nil, nil, err
	}
	dec := d.loose[f]
	if validation != metav1.FieldValidationIgnore {
		dec = d.strict[f]
	}
	obj, actual, err := dec.Decode(body, &gvk, into)
	if err != nil {
		if runtime.IsNotRegisteredError(err) && actual != nil && actual.GroupVersion() != gvk.GroupVersion() {
			return nil, nil, versionError(*actual, gvk)
		}
		strict, ok := runtime.AsStrictDecodingError(err)
		if !ok || obj == nil || validation == metav1.FieldValidationStrict {
			return nil, nil, decodeError(err, gvk, actual, body)
		}
		warnings = Messages(strict.Errors())
	}
	switch {
	case actual.GroupVersion() != gvk.GroupVersion():
		return nil, nil, versionError(*actual, gvk)
	case actual.Kind != gvk.Kind:
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: the kind in the data does not match the expected kind", actual.Kind, actual.Version, gvk.Kind))
	}
	return obj, warnings, nil
}

func versionError(have, want schema.GroupVersionKind) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", have.GroupVersion(), want.GroupVersion()))
}

// Messages returns the texts of errs, each once.
func Messages(errs []error) []string {
	var out []string
	seen := map[string]bool{}
	for _, e := range errs {
		if msg := e.Error(); !seen[msg] {
			seen[msg] = true
			out = append(out, msg)
		}
	}
	return out
}

// decodeError words a decoding failure as Kubernetes users know it.
func decodeError(err error, want schema.GroupVersionKind, actual *schema.GroupVersionKind, body []byte) error {
	if actual != nil && actual.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", actual.Kind, actual.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(body)))
}

// summary is the beginning of a body that could not be read, in hexadecimal: it may be binary.
func summary(body []byte) string {
	const show = 30
	switch {
	case len(body) == 0:
		return "<empty>"
	case len(body) > show:
		return fmt.Sprintf("%x ...", body[:show])
	}
	return fmt.Sprintf("%x", body)
}
