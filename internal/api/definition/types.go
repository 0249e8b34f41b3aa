package definition

import (
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	definitionapply "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// types are how server-side apply reads definitions, and other objects as another converter does.
type types struct {
	managedfields.TypeConverter
	definitions func() managedfields.TypeConverter
}

// WithTypes returns a converter that knows definitions, too. Their schema is parsed at the first use.
func WithTypes(others managedfields.TypeConverter, s *runtime.Scheme) managedfields.TypeConverter {
	return types{others, sync.OnceValue(func() managedfields.TypeConverter { return definitionapply.NewTypeConverter(s) })}
}

// ObjectToTyped implements managedfields.TypeConverter.
func (t types) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if obj.GetObjectKind().GroupVersionKind().Group == apiextensionsv1.GroupName {
		return t.definitions().ObjectToTyped(obj, opts...)
	}
	return t.TypeConverter.ObjectToTyped(obj, opts...)
}
