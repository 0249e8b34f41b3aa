package crd

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	packing "github.com/knarr-io/knarr/internal/api/definition"
)

type (
	definition = apiextensionsv1.CustomResourceDefinition
	condition  = apiextensionsv1.CustomResourceDefinitionCondition
)

// planStatus decides the status of a definition beside the others of its group. served reports whether what its accepted names say
// is served, structure is what to say of its schemas (nonStructural).
func planStatus(def *definition, group []*definition, served bool, structure *condition, now metav1.Time) *apiextensionsv1.CustomResourceDefinitionStatus {
	status := def.Status.DeepCopy()
	names, accepted := acceptNames(def, group)
	status.AcceptedNames = names
	setCondition(status, accepted, now)
	if !conditionTrue(status, apiextensionsv1.Established) {
		setCondition(status, establish(def, accepted, served), now)
	}
	if def.DeletionTimestamp == nil {
		setOrRemove(status, apiextensionsv1.NonStructuralSchema, structure, now)
		if c := approval(def); c != nil {
			setCondition(status, *c, now)
		}
	}
	return status
}

// acceptNames returns the names that a definition gets - those it wants and nobody else of its group has, else those it had - and what to
// say of it.
func acceptNames(def *definition, group []*definition) (apiextensionsv1.CustomResourceDefinitionNames, condition) {
	resources, kinds := map[string]bool{}, map[string]bool{}
	for _, other := range group {
		names := other.Status.AcceptedNames
		for _, n := range append([]string{names.Plural, names.Singular}, names.ShortNames...) {
			resources[n] = true
		}
		kinds[names.Kind], kinds[names.ListKind] = true, true
	}
	wanted, had := def.Spec.Names, def.Status.AcceptedNames
	got := *had.DeepCopy()
	out := condition{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, Reason: "NoConflicts", Message: "no conflicts found"}
	conflict := func(reason, message string) {
		out.Status, out.Reason, out.Message = apiextensionsv1.ConditionFalse, reason, message
	}
	take := func(into *string, name, present string, taken map[string]bool, reason string) {
		if name != present && taken[name] {
			conflict(reason, fmt.Sprintf("%q is already in use", name))
			return
		}
		*into = name
	}
	take(&got.Plural, wanted.Plural, had.Plural, resources, "PluralConflict")
	take(&got.Singular, wanted.Singular, had.Singular, resources, "SingularConflict")
	var short []string
	for _, name := range wanted.ShortNames {
		if !slices.Contains(had.ShortNames, name) && resources[name] {
			short = append(short, fmt.Sprintf("%q is already in use", name))
		}
	}
	switch {
	case len(short) == 1:
		conflict("ShortNamesConflict", short[0])
	case len(short) > 1:
		conflict("ShortNamesConflict", "["+strings.Join(short, ", ")+"]")
	default:
		got.ShortNames = slices.Clone(wanted.ShortNames)
	}
	take(&got.Kind, wanted.Kind, had.Kind, kinds, "KindConflict")
	take(&got.ListKind, wanted.ListKind, had.ListKind, kinds, "ListKindConflict")
	got.Categories = slices.Clone(wanted.Categories)
	return got, out
}

// establish returns the condition Established of a definition that is not established yet.
func establish(def *definition, accepted condition, served bool) condition {
	out := condition{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse, Reason: "NotAccepted", Message: "not all names are accepted"}
	switch {
	case accepted.Status != apiextensionsv1.ConditionTrue:
	case !served:
		out.Reason, out.Message = "Installing", "the initial names have been accepted"
	case invalidBundle(def):
		out.Reason, out.Message = "InvalidCABundle", "The conversion webhook CABundle is invalid"
	default:
		out.Status, out.Reason, out.Message = apiextensionsv1.ConditionTrue, "InitialNamesAccepted", "the initial names have been accepted"
	}
	return out
}

// invalidBundle reports whether the certificates of the conversion webhook cannot be read.
func invalidBundle(def *definition) bool {
	conv := def.Spec.Conversion
	if conv == nil || conv.Webhook == nil || conv.Webhook.ClientConfig == nil || len(conv.Webhook.ClientConfig.CABundle) == 0 {
		return false
	}
	return !x509.NewCertPool().AppendCertsFromPEM(conv.Webhook.ClientConfig.CABundle)
}

// nonStructural returns the condition NonStructuralSchema, or nil where all schemas are structural. Validation refuses others; they come
// from stores of older releases.
func nonStructural(def *definition) *condition {
	out := &condition{Type: apiextensionsv1.NonStructuralSchema, Status: apiextensionsv1.ConditionTrue, Reason: "Violations"}
	var errs field.ErrorList
	if def.Spec.PreserveUnknownFields {
		errs = append(errs, field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true, "must be false"))
	}
	if !def.Spec.PreserveUnknownFields {
		return nil // validation refuses schemas that are not structural where fields are pruned, and has always done so
	}
	for i, v := range def.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		s, err := structuralOf(v.Schema.OpenAPIV3Schema)
		if err != nil {
			out.Status, out.Reason = apiextensionsv1.ConditionUnknown, "StructuralError"
			out.Message = fmt.Sprintf("failed to check validation schema for version %s: %v", v.Name, err)
			return out
		}
		errs = append(errs, structural.ValidateStructural(field.NewPath("spec", "versions").Index(i).Child("schema", "openAPIV3Schema"), s)...)
	}
	if len(errs) == 0 {
		return nil
	}
	out.Message = errs.ToAggregate().Error()
	return out
}

func structuralOf(props *apiextensionsv1.JSONSchemaProps) (*structural.Structural, error) {
	props, err := packing.Schema(props)
	if err != nil {
		return nil, err
	}
	in := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, in, nil); err != nil {
		return nil, err
	}
	return structural.NewStructural(in)
}

// approval returns the condition KubernetesAPIApprovalPolicyConformant, which definitions in groups of the Kubernetes community have.
func approval(def *definition) *condition {
	group := "." + def.Spec.Group
	if !strings.HasSuffix(group, ".k8s.io") && !strings.HasSuffix(group, ".kubernetes.io") {
		return nil
	}
	const name = apiextensionsv1.KubeAPIApprovedAnnotation
	const see = ", see https://github.com/kubernetes/enhancements/pull/1111"
	out := &condition{Type: apiextensionsv1.KubernetesAPIApprovalPolicyConformant, Status: apiextensionsv1.ConditionFalse}
	value := def.Annotations[name]
	u, err := url.ParseRequestURI(value)
	switch {
	case value == "":
		out.Reason, out.Message = "MissingAnnotation", fmt.Sprintf("protected groups must have approval annotation %q%s", name, see)
	case strings.HasPrefix(value, "unapproved"):
		out.Reason, out.Message = "UnapprovedAnnotation", fmt.Sprintf("not approved: %q", value)
	case err == nil && u.Host != "" && u.Scheme != "":
		out.Status, out.Reason, out.Message = apiextensionsv1.ConditionTrue, "ApprovedAnnotation", "approved in "+value
	default:
		out.Reason = "InvalidAnnotation"
		out.Message = fmt.Sprintf("protected groups must have approval annotation %q with either a URL or a reason starting with \"unapproved\"%s", name, see)
	}
	return out
}
