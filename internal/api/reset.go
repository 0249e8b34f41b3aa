package api

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// ResetFields are the fields that a write to subresource sub ("" for the object itself) silently keeps as they are, so
// that server-side apply does not make the writer their owner. The keys are the versions the resource is served in.
func (r *Resource) ResetFields(sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	filter := r.resetFilter(sub)
	if filter == nil {
		return nil
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, gv := range append([]schema.GroupVersion{r.GroupVersion()}, r.Versions...) {
		out[fieldpath.APIVersion(gv.String())] = filter
	}
	return out
}

func (r *Resource) resetFilter(sub string) fieldpath.Filter {
	switch {
	case sub == "ephemeralcontainers":
		return fieldpath.NewIncludeMatcherFilter(fieldpath.MakePrefixMatcherOrDie("spec", "ephemeralContainers"))
	case sub == "resize":
		each := fieldpath.MatchAnyPathElement()
		return fieldpath.NewIncludeMatcherFilter(
			fieldpath.MakePrefixMatcherOrDie("spec", "containers", each, "resources"),
			fieldpath.MakePrefixMatcherOrDie("spec", "containers", each, "resizePolicy"),
			fieldpath.MakePrefixMatcherOrDie("spec", "initContainers", each, "resources"),
			fieldpath.MakePrefixMatcherOrDie("spec", "initContainers", each, "resizePolicy"),
		)
	case !r.Status:
		return nil
	case sub != "status":
		return exclude(fieldpath.MakePathOrDie("status"))
	}
	kept := []fieldpath.Path{fieldpath.MakePathOrDie("spec")}
	switch r {
	case Pods:
		kept = append(kept, fieldpath.MakePathOrDie("metadata", "deletionTimestamp"), fieldpath.MakePathOrDie("metadata", "ownerReferences"))
	case Deployments:
		kept = append(kept, fieldpath.MakePathOrDie("metadata", "labels"))
	case ServiceCIDRs:
		kept = append(kept, fieldpath.MakePathOrDie("metadata"))
	}
	return exclude(kept...)
}

func exclude(paths ...fieldpath.Path) fieldpath.Filter {
	return fieldpath.NewExcludeSetFilter(fieldpath.NewSet(paths...))
}
