package patch

import (
	"fmt"
	"slices"
)

// place is what a pointer's parent is: an object, or a list with the way to put another in its stead.
type place struct {
	object map[string]any
	list   []any
	store  func([]any) // nil for objects
}

// errNoPath tells that what a pointer leads through is not there.
func errNoPath(path pointer) error { return fmt.Errorf("doc is missing path: %s", path.text) }

// find follows a pointer to its parent, decoding what lies on the way.
func (p *jsonPatch) find(path pointer) (place, error) {
	if len(path.parent) == 0 {
		p.doc.field(path.last)
		return place{object: p.doc}, nil
	}
	at, _ := p.doc.field(path.parent[0])
	store := func(l []any) { p.doc[path.parent[0]] = l }
	for _, token := range path.parent[1:] {
		switch v := at.(type) {
		case map[string]any:
			at, store = v[token], func(l []any) { v[token] = l }
		case []any:
			i, err := index(token, len(v))
			if err != nil {
				return place{}, errNoPath(path)
			}
			at, store = v[i], func(l []any) { v[i] = l }
		default:
			return place{}, errNoPath(path)
		}
	}
	switch v := at.(type) {
	case map[string]any:
		return place{object: v}, nil
	case []any:
		return place{list: v, store: store}, nil
	}
	return place{}, errNoPath(path)
}

// get returns what is at path; nil for a field that is not there.
func (p *jsonPatch) get(path pointer) (any, error) {
	at, err := p.find(path)
	if err != nil || at.store == nil {
		return at.object[path.last], err
	}
	i, err := index(path.last, len(at.list))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.text, err)
	}
	return at.list[i], nil
}

// add sets a field or puts an element into a list, before the one that has the index now; "-" stands for the end.
func (p *jsonPatch) add(path pointer, value any) error {
	at, err := p.find(path)
	if err != nil {
		return err
	}
	if at.store == nil {
		at.object[path.last] = value
		return nil
	}
	i := len(at.list)
	if path.last != "-" {
		if i, err = index(path.last, len(at.list)+1); err != nil {
			return fmt.Errorf("%s: %w", path.text, err)
		}
	}
	if err := p.shift(len(at.list) - i); err != nil {
		return err
	}
	at.store(slices.Insert(at.list, i, value))
	return nil
}

// replace sets a field, also one that is not there, as Kubernetes does, or an element that is.
func (p *jsonPatch) replace(path pointer, value any) error {
	at, err := p.find(path)
	if err != nil {
		return err
	}
	if at.store == nil {
		at.object[path.last] = value
		return nil
	}
	i, err := index(path.last, len(at.list))
	if err != nil {
		return fmt.Errorf("%s: %w", path.text, err)
	}
	at.list[i] = value
	return nil
}

// remove takes away and returns what is at path.
func (p *jsonPatch) remove(path pointer) (any, error) {
	at, err := p.find(path)
	if err != nil {
		return nil, err
	}
	if at.store == nil {
		value, ok := at.object[path.last]
		if !ok {
			return nil, errNoPath(path)
		}
		delete(at.object, path.last)
		return value, nil
	}
	i, err := index(path.last, len(at.list))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.text, err)
	}
	if err := p.shift(len(at.list) - i); err != nil {
		return nil, err
	}
	value := at.list[i]
	at.store(slices.Delete(at.list, i, i+1))
	return value, nil
}

// shift accounts for n elements that get another index.
func (p *jsonPatch) shift(n int) error {
	if p.limits.shifted -= n; p.limits.shifted < 0 {
		return errTooMuch("the patch moves too many elements of lists")
	}
	return nil
}
