package api

import (
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Resets returns ResetFields of one subresource for each version that the resource is served in, as server-side apply asks for
// them.
func (r *Resource) Resets(sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	filter := r.ResetFields[sub]
	if filter == nil {
		return nil
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, gv := range r.GroupVersions() {
		out[fieldpath.APIVersion(gv.String())] = filter
	}
	return out
}

// defaultResets are those of nearly all resources with a status subresource: the object's own writes keep the status, those
// of the status keep the spec. What is declared goes first.
func (r *Resource) defaultResets() {
	if !r.Status {
		return
	}
	all := map[string]fieldpath.Filter{"": without("status"), "status": without("spec")}
	for sub, filter := range r.ResetFields {
		all[sub] = filter
	}
	r.ResetFields = all
}

// without lets all fields through but those at paths such as "metadata.labels".
func without(paths ...string) fieldpath.Filter {
	set := fieldpath.NewSet()
	for _, p := range paths {
		set.Insert(fieldpath.MakePathOrDie(steps(p)...))
	}
	return fieldpath.NewExcludeSetFilter(set)
}

// only lets nothing through but what is at or below paths; an asterisk stands for each element of a list.
func only(paths ...string) fieldpath.Filter {
	var out anyOf
	for _, p := range paths {
		out = append(out, fieldpath.NewIncludeMatcherFilter(fieldpath.MakePrefixMatcherOrDie(steps(p)...)))
	}
	return out
}

// anyOf lets through what one of its filters does. structured-merge-diff v6.4.2 loses some of the paths when it joins several
// matchers by itself (SetMatcher.Merge).
type anyOf []fieldpath.Filter

// Filter implements fieldpath.Filter.
func (f anyOf) Filter(set *fieldpath.Set) *fieldpath.Set {
	out := fieldpath.NewSet()
	for _, one := range f {
		out = out.Union(one.Filter(set))
	}
	return out
}

func steps(path string) []any {
	var out []any
	for s := range strings.SplitSeq(path, ".") {
		if s == "*" {
			out = append(out, fieldpath.MatchAnyPathElement())
		} else {
			out = append(out, s)
		}
	}
	return out
}
