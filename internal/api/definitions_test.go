package api

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// wheels is a definition as a client may send it.
func wheels() *apiextensionsv1.CustomResourceDefinition {
	version := func(name string, storage bool) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true, Storage: storage, Schema: &apiextensionsv1.CustomResourceValidation{
			OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
				"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
					"size": {Type: "integer", Default: &apiextensionsv1.JSON{Raw: []byte("3")}},
					"word": {Type: "string", Format: "hostname"},
				}},
			}},
		}}
	}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com", Labels: map[string]string{"a": "b"}, SelfLink: "x"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names:      apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Singular: "widget", Kind: "Widget", ListKind: "WidgetList", ShortNames: []string{"w"}},
			Versions:   []apiextensionsv1.CustomResourceDefinitionVersion{version("v1", true), version("v1beta1", false)},
			Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter},
		},
		Status: apiextensionsv1.CustomResourceDefinitionStatus{StoredVersions: []string{"v1"}},
	}
}

// goldenDefinition is wheels in one of the forms of Kubernetes' examples of other kinds.
func goldenDefinition(t testing.TB, ext string) []byte {
	t.Helper()
	obj := wheels()
	obj.GetObjectKind().SetGroupVersionKind(CustomResourceDefinitions.GroupVersionKind)
	var buf bytes.Buffer
	var err error
	if ext == "pb" {
		err = protobuf.NewSerializer(Scheme, Scheme).Encode(obj, &buf)
	} else {
		err = json.NewEncoder(&buf).Encode(obj)
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestDefinitionsHaveTheirDefaults(t *testing.T) {
	crd := wheels()
	crd.Spec.Names.Singular, crd.Spec.Names.ListKind, crd.Spec.Conversion, crd.Status.StoredVersions = "", "", nil, nil
	CustomResourceDefinitions.Default(crd)
	CustomResourceDefinitions.PrepareForCreate(crd)
	if n := crd.Spec.Names; n.Singular != "widget" || n.ListKind != "WidgetList" || crd.Spec.Conversion.Strategy != apiextensionsv1.NoneConverter {
		t.Errorf("names %+v, conversion %+v", n, crd.Spec.Conversion)
	}
	if !slices.Equal(crd.Status.StoredVersions, []string{"v1"}) {
		t.Errorf("stored versions %v", crd.Status.StoredVersions)
	}
	if errs := CustomResourceDefinitions.Validate(crd); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestTheStoredVersionIsRemembered(t *testing.T) {
	old, crd := wheels(), wheels()
	crd.Spec.Versions[0].Storage, crd.Spec.Versions[1].Storage = false, true
	CustomResourceDefinitions.PrepareForUpdate(crd, old, "")
	if !slices.Equal(crd.Status.StoredVersions, []string{"v1", "v1beta1"}) || crd.Generation != old.Generation+1 {
		t.Errorf("stored versions %v, generation %d", crd.Status.StoredVersions, crd.Generation)
	}
	if !slices.Equal(old.Status.StoredVersions, []string{"v1"}) {
		t.Error("the definition before was changed")
	}
}

// A write of the status keeps the specification, schemas and all, and does not copy it.
func TestStatusOfADefinition(t *testing.T) {
	old, crd := wheels(), wheels()
	crd.Spec.Versions = crd.Spec.Versions[:1]
	crd.Spec.Versions[0].Schema = nil
	crd.Status.AcceptedNames = crd.Spec.Names
	old.ResourceVersion, crd.ResourceVersion = "1", "1"
	CustomResourceDefinitions.PrepareForUpdate(crd, old, "status")
	if len(crd.Spec.Versions) != 2 || crd.Spec.Versions[0].Schema != old.Spec.Versions[0].Schema || crd.Spec.Versions[0].Schema == nil {
		t.Errorf("the specification was written: %+v", crd.Spec)
	}
	if crd.Status.AcceptedNames.Kind != "Widget" || crd.Generation != old.Generation {
		t.Errorf("status %+v, generation %d", crd.Status, crd.Generation)
	}
	if errs := CustomResourceDefinitions.ValidateUpdate(crd, old, "status"); len(errs) > 0 {
		t.Error(errs)
	}
	crd.Status.AcceptedNames.Plural = "Wheels!"
	if errs := CustomResourceDefinitions.ValidateUpdate(crd, old, "status"); len(errs) == 0 {
		t.Error("a name that is none was accepted")
	}
	if crd.Spec.Versions[0].Schema == nil {
		t.Error("validation took the schemas")
	}
}

func TestDefinitionsStayUntilTheirObjectsAreGone(t *testing.T) {
	crd := wheels()
	CustomResourceDefinitions.BeginDeletion(crd)
	if !slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) || crd.Status.Conditions[0].Type != apiextensionsv1.Terminating {
		t.Errorf("finalizers %v, conditions %v", crd.Finalizers, crd.Status.Conditions)
	}
	now := metav1.NewTime(time.Unix(0, 0))
	crd.DeletionTimestamp, crd.Finalizers = &now, nil
	CustomResourceDefinitions.BeginDeletion(crd)
	if len(crd.Finalizers) != 0 {
		t.Error("the finalizer came back after its objects had gone")
	}
}

func TestSchemasThatSayNothingAreWarnedOf(t *testing.T) {
	crd, set := wheels(), "set"
	spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	spec.Properties["word"] = apiextensionsv1.JSONSchemaProps{Type: "string", Format: "potato"}
	spec.Properties["list"] = apiextensionsv1.JSONSchemaProps{Type: "array", XListType: &set, Items: &apiextensionsv1.JSONSchemaPropsOrArray{
		Schema: &apiextensionsv1.JSONSchemaProps{Type: "object"},
	}}
	got := strings.Join(CustomResourceDefinitions.Warnings(crd, nil), "\n")
	if !strings.Contains(got, `unrecognized format "potato"`) || !strings.Contains(got, "set for items of type") {
		t.Errorf("warnings: %s", got)
	}
	if again := CustomResourceDefinitions.Warnings(crd, crd); len(again) > 0 {
		t.Errorf("warned again: %v", again)
	}
}
