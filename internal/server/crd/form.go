package crd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"weak"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	packing "github.com/knarr-io/knarr/internal/api/definition"
)

// Forms are the compiled schemas in use, by content. The zero value is ready for use.
type Forms struct {
	mu    sync.Mutex
	known map[string]weak.Pointer[form]
}

// form is what objects of one version may hold. Each part is compiled when it is first asked for, and kept as long as a resource
// has the form.
type form struct {
	id    string                           // names the content of the schema
	props *apiextensionsv1.JSONSchemaProps // may be packed
	// loose forms keep fields that their schema does not name (spec.preserveUnknownFields of definitions that began as v1beta1).
	loose bool

	compiled func() (*structural.Structural, error)
	checks   func() (validators, error)
	rules    func() *cel.Validator
}

// validators check the values of objects: all of them, and those of the status alone.
type validators struct {
	object, status schemavalidation.SchemaValidator
}

// find returns the form of a schema, which is not changed afterwards.
func (f *Forms) find(schema *apiextensionsv1.CustomResourceValidation, loose bool) *form {
	var props *apiextensionsv1.JSONSchemaProps
	if schema != nil {
		props = schema.OpenAPIV3Schema
	}
	id := nameOf(props, loose)
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.known[id].Value(); known != nil {
		return known
	}
	made := newForm(id, props, loose)
	if f.known == nil {
		f.known = map[string]weak.Pointer[form]{}
	}
	for name, p := range f.known { // those that nobody has any longer
		if p.Value() == nil {
			delete(f.known, name)
		}
	}
	f.known[id] = weak.Make(made)
	return made
}

// nameOf names the content of a schema.
func nameOf(props *apiextensionsv1.JSONSchemaProps, loose bool) string {
	h := sha256.New()
	fmt.Fprintln(h, loose, props != nil)
	if props != nil {
		name, err := packing.Name(props)
		if err != nil {
			fmt.Fprintf(h, "%v %p", err, props) // nothing else has this name
		}
		fmt.Fprintln(h, name)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func newForm(id string, props *apiextensionsv1.JSONSchemaProps, loose bool) *form {
	f := &form{id: id, props: props, loose: loose}
	f.compiled = sync.OnceValues(func() (*structural.Structural, error) { return compile(props, loose) })
	f.checks = sync.OnceValues(func() (validators, error) { return newValidators(props) })
	f.rules = sync.OnceValue(func() *cel.Validator {
		s, err := f.compiled()
		if err != nil || s == nil {
			return nil
		}
		return cel.NewValidator(s, true, celconfig.PerCallLimit)
	})
	return f
}

// internalProps returns a schema as upstream's internal type, which may share memory with it.
func internalProps(props *apiextensionsv1.JSONSchemaProps) (*apiextensions.JSONSchemaProps, error) {
	props, err := packing.Schema(props)
	if err != nil {
		return nil, err
	}
	out := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, out, nil); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	return out, nil
}

// compile returns a structural schema whose defaults hold nothing that the schema does not have; nil where there is no schema.
func compile(props *apiextensionsv1.JSONSchemaProps, loose bool) (*structural.Structural, error) {
	if props == nil {
		return nil, nil
	}
	in, err := internalProps(props)
	if err != nil {
		return nil, err
	}
	s, err := structural.NewStructural(in)
	if err != nil {
		if loose {
			return nil, nil
		}
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	s = s.DeepCopy() // defaults are shared with the definition
	if loose {
		return s, nil
	}
	if err := defaulting.PruneDefaults(s); err != nil {
		return nil, fmt.Errorf("pruning the schema's defaults: %w", err)
	}
	return s, nil
}

func newValidators(props *apiextensionsv1.JSONSchemaProps) (v validators, err error) {
	var in *apiextensions.JSONSchemaProps
	if props != nil {
		if in, err = internalProps(props); err != nil {
			return v, err
		}
	}
	if v.object, _, err = schemavalidation.NewSchemaValidator(in); err != nil {
		return v, fmt.Errorf("compiling the schema: %w", err)
	}
	if in == nil {
		return v, nil
	}
	if status, ok := in.Properties["status"]; ok {
		if v.status, _, err = schemavalidation.NewSchemaValidator(&status); err != nil {
			return v, fmt.Errorf("compiling the schema of the status: %w", err)
		}
	}
	return v, nil
}
