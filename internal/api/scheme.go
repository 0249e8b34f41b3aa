package api

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/util/managedfields"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	// It installs most groups (internal/api/columns prints with it), and these the rest.
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/storagemigration/install"
	_ "k8s.io/kubernetes/pkg/printers/internalversion"

	"github.com/knarr-io/knarr/internal/api/definition"
	"github.com/knarr-io/knarr/internal/api/registration"
)

// Scheme knows the Go types of all served versions and upstream's internal ones, how to convert between them, and
// their defaults. It is upstream's own instance, because upstream's printers fill that one anyway.
var Scheme = newScheme()

// Codecs encode and decode the types of Scheme as JSON, YAML, protobuf and CBOR.
var Codecs = serializer.NewCodecFactory(Scheme, serializer.WithSerializer(cbor.NewSerializerInfo))

// ParameterCodec decodes query parameters into option types (ListOptions, PodLogOptions, ...).
var ParameterCodec = runtime.NewParameterCodec(Scheme)

// TypeConverter turns versioned objects into the typed values of server-side apply, by the schemas that come with
// client-go and, of definitions and APIServices, with their own libraries. They are parsed at the first call (tens of milliseconds, a few MB).
var TypeConverter = sync.OnceValue(func() managedfields.TypeConverter {
	return registration.WithTypes(definition.WithTypes(applyconfigurations.NewTypeConverter(Scheme), Scheme), Scheme)
})

func newScheme() *runtime.Scheme {
	s := legacyscheme.Scheme
	// Table and PartialObjectMetadata, under which kubectl and metadata clients ask for objects.
	utilruntime.Must(metav1.AddMetaToScheme(s))
	utilruntime.Must(definition.AddToScheme(s))
	utilruntime.Must(registration.AddToScheme(s))
	return s
}

// Convert returns obj, an object or a list, in group-version gv: obj itself if it is of that version, else a new object
// that may share memory with obj. It goes through upstream's internal type, as all conversions between versions do.
func Convert(obj runtime.Object, gv schema.GroupVersion) (runtime.Object, error) {
	kinds, _, err := Scheme.ObjectKinds(obj)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if k.GroupVersion() == gv {
			return obj, nil
		}
	}
	in, err := Scheme.UnsafeConvertToVersion(obj, internalVersion(kinds[0]))
	if err != nil {
		return nil, err
	}
	return Scheme.UnsafeConvertToVersion(in, gv)
}

// internalVersion is the version of upstream's internal type of kind k.
func internalVersion(k schema.GroupVersionKind) schema.GroupVersion {
	return schema.GroupVersion{Group: k.Group, Version: runtime.APIVersionInternal}
}
