package flowcontrol

import (
	"maps"
	"slices"
	"strconv"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/knarr-io/knarr/internal/api"
)

// standard is an object that every cluster has.
type standard struct {
	object api.Object
	// mandatory objects always have the spec that stands here; that of the others is their administrator's to change.
	mandatory bool
}

// standards are the objects that kube-apiserver keeps, levels before the schemas that refer to them.
func standards() []standard {
	var out []standard
	levels := func(all []*flowcontrolv1.PriorityLevelConfiguration, mandatory bool) {
		for _, l := range all {
			out = append(out, standard{l, mandatory})
		}
	}
	schemas := func(all []*flowcontrolv1.FlowSchema, mandatory bool) {
		for _, s := range all {
			out = append(out, standard{s, mandatory})
		}
	}
	levels(bootstrap.MandatoryPriorityLevelConfigurations, true)
	levels(bootstrap.SuggestedPriorityLevelConfigurations, false)
	schemas(bootstrap.MandatoryFlowSchemas, true)
	schemas(bootstrap.SuggestedFlowSchemas, false)
	return out
}

// revised returns what has to be written in the place of have, or nil if it is as it should be.
func (s standard) revised(have api.Object) api.Object {
	update := s.mandatory || updates(have)
	said, err := strconv.ParseBool(have.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
	annotated := err == nil && said == update
	same := !update || s.same(have)
	if annotated && same {
		return nil
	}
	out := have.DeepCopyObject().(api.Object)
	if !same {
		setSpec(out, s.object)
	}
	annotations := maps.Clone(out.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[flowcontrolv1.AutoUpdateAnnotationKey] = strconv.FormatBool(update)
	out.SetAnnotations(annotations)
	return out
}

// updates reports whether the spec of a suggested object follows the server's: as its annotation says, and without one as long as
// nobody has changed the spec.
func updates(have api.Object) bool {
	if said, err := strconv.ParseBool(have.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey]); err == nil {
		return said
	}
	return have.GetGeneration() == 1
}

// same reports whether have has the spec of the standard. What the exempt level lends is its administrator's choice.
func (s standard) same(have api.Object) bool {
	switch want := s.object.(type) {
	case *flowcontrolv1.FlowSchema:
		return equality.Semantic.DeepEqual(want.Spec, have.(*flowcontrolv1.FlowSchema).Spec)
	case *flowcontrolv1.PriorityLevelConfiguration:
		is := have.(*flowcontrolv1.PriorityLevelConfiguration).Spec
		if want.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt && is.Exempt != nil {
			is.Exempt = want.Spec.Exempt
		}
		return equality.Semantic.DeepEqual(want.Spec, is)
	}
	return true
}

func setSpec(obj, from api.Object) {
	switch from := from.DeepCopyObject().(type) {
	case *flowcontrolv1.FlowSchema:
		obj.(*flowcontrolv1.FlowSchema).Spec = from.Spec
	case *flowcontrolv1.PriorityLevelConfiguration:
		obj.(*flowcontrolv1.PriorityLevelConfiguration).Spec = from.Spec
	}
}

// unwanted reports whether an object was made by a server and is one that servers no longer make.
func unwanted(have api.Object, all []standard) bool {
	made, err := strconv.ParseBool(have.GetAnnotations()[flowcontrolv1.AutoUpdateAnnotationKey])
	return err == nil && made && !slices.ContainsFunc(all, func(s standard) bool { return s.is(have) })
}

// is reports whether have is the object of the standard, whatever it holds.
func (s standard) is(have api.Object) bool {
	_, level := s.object.(*flowcontrolv1.PriorityLevelConfiguration)
	_, other := have.(*flowcontrolv1.PriorityLevelConfiguration)
	return level == other && s.object.GetName() == have.GetName()
}

// dangling returns the status and reason of a schema's Dangling condition, and its message.
func dangling(s *flowcontrolv1.FlowSchema, levelExists bool) flowcontrolv1.FlowSchemaCondition {
	to := "This FlowSchema references the PriorityLevelConfiguration object named " + strconv.Quote(s.Spec.PriorityLevelConfiguration.Name)
	c := flowcontrolv1.FlowSchemaCondition{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found", Message: to + " and it exists",
	}
	if !levelExists {
		c.Status, c.Reason, c.Message = flowcontrolv1.ConditionTrue, "NotFound", to+" but there is no such object"
	}
	return c
}

// setCondition puts want into the conditions and reports whether that changes them. The time is that of the last change of anything,
// as kube-apiserver has it.
func setCondition(in *[]flowcontrolv1.FlowSchemaCondition, want flowcontrolv1.FlowSchemaCondition) bool {
	for i, have := range *in {
		if have.Type != want.Type {
			continue
		}
		if have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
			return false
		}
		*in = slices.Clone(*in)
		(*in)[i] = want
		return true
	}
	*in = append(slices.Clip(*in), want)
	return true
}
