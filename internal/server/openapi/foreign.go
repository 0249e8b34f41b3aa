package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Foreign is what another server documents of a group-version.
type Foreign struct {
	schema.GroupVersion
	// V2 is its part of the document of everything (see Part), or nil.
	V2 *Document
	// Location is where the document of version 3 is, with the hash of its content, or empty.
	Location string
}

const (
	definitionsOf = "#/definitions/"
	kindsOf       = "x-kubernetes-group-version-kind"
)

// Beside returns d with what other servers document. What they say of their group-versions goes before what d does.
func (d *Documents) Beside(others []Foreign) *Documents {
	if len(others) == 0 {
		return d
	}
	out := *d
	out.foreign = map[schema.GroupVersion]string{}
	for _, f := range others {
		out.foreign[f.GroupVersion] = f.Location
	}
	out.v2 = sync.OnceValues(func() (*Document, error) {
		doc, err := plainJSON(d.buildV2())
		if err != nil {
			return nil, err
		}
		for _, f := range others {
			if f.V2 != nil {
				if err := merge(doc, f); err != nil {
					return nil, fmt.Errorf("the OpenAPI document of %s: %w", f.GroupVersion, err)
				}
			}
		}
		return pack(doc, "")
	})
	return &out
}

// plainJSON returns doc as encoding/json reads it.
func plainJSON(doc object) (out object, _ error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return out, json.Unmarshal(b, &out)
}

// Part returns what a document of version 2 says of the paths below prefix, with the definitions that they need.
func Part(doc []byte, prefix string) (*Document, error) {
	var all object
	if err := json.Unmarshal(doc, &all); err != nil {
		return nil, err
	}
	paths, _ := all["paths"].(object)
	maps.DeleteFunc(paths, func(path string, _ any) bool { return !strings.HasPrefix(path, prefix) })
	definitions, _ := all["definitions"].(object)
	needed := object{}
	collect(paths, definitions, needed)
	out := object{"paths": orEmpty(paths), "definitions": needed}
	if p, ok := all["parameters"].(object); ok && len(p) > 0 {
		out["parameters"] = p
	}
	return pack(out, "")
}

func orEmpty(o object) object {
	if o == nil {
		return object{}
	}
	return o
}

// collect adds to needed the definitions that v refers to, and those that they refer to.
func collect(v any, definitions, needed object) {
	walk(v, func(name string) string {
		if def, ok := definitions[name]; ok && needed[name] == nil {
			needed[name] = def
			collect(def, definitions, needed)
		}
		return name
	})
}

// walk replaces the name of each definition that v refers to.
func walk(v any, name func(string) string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			walk(e, name)
		}
	case object:
		for k, e := range v {
			if ref, ok := e.(string); ok && k == "$ref" {
				if of, ok := strings.CutPrefix(ref, definitionsOf); ok {
					v[k] = definitionsOf + name(of)
				}
				continue
			}
			walk(e, name)
		}
	}
}

// merge adds a part to doc. Definitions that are not what doc has under the same name get another one.
func merge(doc object, f Foreign) error {
	b, err := f.V2.JSON()
	if err != nil {
		return err
	}
	var part object
	if err := json.Unmarshal(b, &part); err != nil {
		return err
	}
	definitions, _ := doc["definitions"].(object)
	further, _ := part["definitions"].(object)
	renamed := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(further)) {
		if have, taken := definitions[name]; taken && !alike(have, further[name]) {
			renamed[name] = free(name, definitions, further)
		}
	}
	if len(renamed) > 0 {
		walk(part, func(name string) string {
			if to, ok := renamed[name]; ok {
				return to
			}
			return name
		})
	}
	for name, def := range further {
		if to, ok := renamed[name]; ok {
			name = to
		}
		if _, taken := definitions[name]; !taken {
			definitions[name] = def
		}
	}
	paths, _ := doc["paths"].(object)
	own := root(f.GroupVersion) + "/"
	maps.DeleteFunc(paths, func(path string, _ any) bool { return strings.HasPrefix(path, own) })
	theirs, _ := part["paths"].(object)
	maps.Copy(paths, theirs)
	if p, ok := part["parameters"].(object); ok {
		all, _ := doc["parameters"].(object)
		all = orEmpty(all)
		maps.Copy(all, p)
		doc["parameters"] = all
	}
	return nil
}

// alike reports whether two definitions say the same, but for the kinds that they are.
func alike(x, y any) bool {
	return bytes.Equal(withoutKinds(x), withoutKinds(y))
}

func withoutKinds(v any) []byte {
	if o, ok := v.(object); ok {
		o = maps.Clone(o)
		delete(o, kindsOf)
		v = o
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil // it came from JSON
	}
	return b
}

// free returns a name that neither has: name_v2, name_v3 and so on, as kube-aggregator calls them.
func free(name string, definitions, further object) string {
	for i := 2; ; i++ {
		to := fmt.Sprintf("%s_v%d", name, i)
		if definitions[to] == nil && further[to] == nil {
			return to
		}
	}
}
