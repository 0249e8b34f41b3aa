package crd

import (
	"reflect"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	then = metav1.NewTime(time.Unix(1000, 0))
	now  = metav1.NewTime(time.Unix(2000, 0))
)

// boats is a definition that wants names; accepted are those that it has.
func boats(wants, accepted apiextensionsv1.CustomResourceDefinitionNames) *definition {
	def := &definition{ObjectMeta: metav1.ObjectMeta{Name: "boats.example.com"}}
	def.Spec.Group, def.Spec.Names, def.Status.AcceptedNames = "example.com", wants, accepted
	def.Spec.Versions = []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true}}
	return def
}

func names(plural, singular, kind string, short ...string) apiextensionsv1.CustomResourceDefinitionNames {
	return apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: singular, Kind: kind, ListKind: kind + "List", ShortNames: short}
}

func TestNamesAreAccepted(t *testing.T) {
	none := apiextensionsv1.CustomResourceDefinitionNames{}
	other := boats(none, names("ships", "ship", "Ship", "sh", "s"))
	for name, c := range map[string]struct {
		wants, had, got apiextensionsv1.CustomResourceDefinitionNames
		reason, message string
	}{
		"free":            {names("boats", "boat", "Boat", "b"), none, names("boats", "boat", "Boat", "b"), "NoConflicts", "no conflicts found"},
		"its own":         {names("boats", "boat", "Boat", "b"), names("boats", "boat", "Boat", "b"), names("boats", "boat", "Boat", "b"), "NoConflicts", "no conflicts found"},
		"taken plural":    {names("ships", "boat", "Boat"), none, names("", "boat", "Boat"), "PluralConflict", `"ships" is already in use`},
		"plural is short": {names("sh", "boat", "Boat"), none, names("", "boat", "Boat"), "PluralConflict", `"sh" is already in use`},
		"taken singular":  {names("boats", "ship", "Boat"), none, names("boats", "", "Boat"), "SingularConflict", `"ship" is already in use`},
		"taken short":     {names("boats", "boat", "Boat", "b", "sh"), none, names("boats", "boat", "Boat"), "ShortNamesConflict", `"sh" is already in use`},
		"two taken short": {names("boats", "boat", "Boat", "sh", "s"), names("boats", "boat", "Boat", "b"), names("boats", "boat", "Boat", "b"), "ShortNamesConflict",
			`["sh" is already in use, "s" is already in use]`},
		"taken kind":             {names("boats", "boat", "Ship"), none, apiextensionsv1.CustomResourceDefinitionNames{Plural: "boats", Singular: "boat"}, "ListKindConflict", `"ShipList" is already in use`},
		"a change that is taken": {names("boats", "ship", "Boat"), names("boats", "boat", "Boat"), names("boats", "boat", "Boat"), "SingularConflict", `"ship" is already in use`},
	} {
		def := boats(c.wants, c.had)
		got, accepted := acceptNames(def, []*definition{other, def})
		if !reflect.DeepEqual(got, c.got) || accepted.Reason != c.reason || accepted.Message != c.message || (accepted.Status == "True") != (c.reason == "NoConflicts") {
			t.Errorf("%s: %+v %s %s\nwant %+v %s %s", name, got, accepted.Reason, accepted.Message, c.got, c.reason, c.message)
		}
	}
}

func TestConditions(t *testing.T) {
	free := names("boats", "boat", "Boat")
	for name, c := range map[string]struct {
		change func(*definition)
		served bool
		want   string // type=status/reason, each
	}{
		"at first": {func(*definition) {}, false, "NamesAccepted=True/NoConflicts Established=False/Installing"},
		"served":   {func(*definition) {}, true, "NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted"},
		"a CA that is none": {func(d *definition) {
			d.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Webhook: &apiextensionsv1.WebhookConversion{
				ClientConfig: &apiextensionsv1.WebhookClientConfig{CABundle: []byte("none")}}}
		}, true, "NamesAccepted=True/NoConflicts Established=False/InvalidCABundle"},
		"unstructured": {func(d *definition) { d.Spec.PreserveUnknownFields = true }, true,
			"NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted NonStructuralSchema=True/Violations"},
		"a schema that cannot be read": {func(d *definition) {
			d.Spec.PreserveUnknownFields = true
			d.Spec.Versions[0].Schema = &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{JSONSchemas: []apiextensionsv1.JSONSchemaProps{{}}}}}
		}, false, "NamesAccepted=True/NoConflicts Established=False/Installing NonStructuralSchema=Unknown/StructuralError"},
		"established once": {func(d *definition) {
			d.Spec.Names.Singular = "ship"
			d.Status.Conditions = []condition{{Type: "Established", Status: "True", Reason: "InitialNamesAccepted", LastTransitionTime: then}}
		}, false, "Established=True/InitialNamesAccepted NamesAccepted=False/SingularConflict"},
		"protected, not approved": {func(d *definition) { d.Spec.Group = "boats.k8s.io" }, false,
			"NamesAccepted=True/NoConflicts Established=False/Installing KubernetesAPIApprovalPolicyConformant=False/MissingAnnotation"},
		"protected, approved": {func(d *definition) {
			d.Spec.Group = "boats.kubernetes.io"
			d.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "https://example.com/approval"}
		}, false, "NamesAccepted=True/NoConflicts Established=False/Installing KubernetesAPIApprovalPolicyConformant=True/ApprovedAnnotation"},
		"protected, unapproved": {func(d *definition) {
			d.Spec.Group = "boats.k8s.io"
			d.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "unapproved, a trial"}
		}, false, "NamesAccepted=True/NoConflicts Established=False/Installing KubernetesAPIApprovalPolicyConformant=False/UnapprovedAnnotation"},
		"protected, nonsense": {func(d *definition) {
			d.Spec.Group = "boats.k8s.io"
			d.Annotations = map[string]string{apiextensionsv1.KubeAPIApprovedAnnotation: "yes"}
		}, false, "NamesAccepted=True/NoConflicts Established=False/Installing KubernetesAPIApprovalPolicyConformant=False/InvalidAnnotation"},
		"being deleted": {func(d *definition) { d.Spec.PreserveUnknownFields, d.DeletionTimestamp = true, &now }, true,
			"NamesAccepted=True/NoConflicts Established=True/InitialNamesAccepted"},
	} {
		def := boats(free, apiextensionsv1.CustomResourceDefinitionNames{})
		c.change(def)
		before := def.DeepCopy()
		status := planStatus(def, []*definition{def, boats(names("", "", ""), names("ships", "ship", "Ship"))}, c.served, nonStructural(def), now)
		var got []string
		for _, c := range status.Conditions {
			got = append(got, string(c.Type)+"="+string(c.Status)+"/"+c.Reason)
			if c.LastTransitionTime != now && c.LastTransitionTime != then {
				t.Errorf("%s: %s changed at %v", name, c.Type, c.LastTransitionTime)
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s: %s\nwant %s", name, text, c.want)
		}
		if !reflect.DeepEqual(def, before) {
			t.Errorf("%s: the definition that was given has changed", name)
		}
	}
}

// The time of a condition is that at which its status changed.
func TestConditionTimes(t *testing.T) {
	status := &apiextensionsv1.CustomResourceDefinitionStatus{}
	setCondition(status, condition{Type: "Established", Status: "False", Reason: "a"}, then)
	setCondition(status, condition{Type: "Established", Status: "False", Reason: "b"}, now)
	if c := conditionOf(status, "Established"); c.Reason != "b" || c.LastTransitionTime != then {
		t.Errorf("%+v", c)
	}
	setCondition(status, condition{Type: "Established", Status: "True", Reason: "b"}, now)
	if c := conditionOf(status, "Established"); c.LastTransitionTime != now || !conditionTrue(status, "Established") {
		t.Errorf("%+v", c)
	}
	setOrRemove(status, "Established", nil, now)
	if len(status.Conditions) != 0 {
		t.Errorf("%+v", status.Conditions)
	}
}

// What is to be said of schemas is found out once for each generation of each object of a name, and forgotten with it.
func TestStructuresAreRemembered(t *testing.T) {
	r := &reconciler{structures: map[string]structure{}}
	def := boats(names("boats", "boat", "Boat"), apiextensionsv1.CustomResourceDefinitionNames{})
	def.UID, def.Generation, def.Spec.PreserveUnknownFields = "a", 1, true
	first := r.structureOf(def)
	if first == nil || r.structureOf(def.DeepCopy()) != first {
		t.Errorf("%v, and then another one", first)
	}
	for _, change := range []func(){func() { def.Generation++ }, func() { def.UID = "b" }} {
		had := r.structureOf(def)
		if change(); r.structureOf(def) == had {
			t.Error("the old condition is said of a new specification")
		}
	}
	def.Spec.PreserveUnknownFields = false
	if def.Generation++; r.structureOf(def) != nil {
		t.Error("a structural schema is not")
	}
	if r.forget([]*definition{def}); len(r.structures) != 1 {
		t.Error("it was forgotten")
	}
	if r.forget(nil); len(r.structures) != 0 {
		t.Error("it was not forgotten")
	}
}
