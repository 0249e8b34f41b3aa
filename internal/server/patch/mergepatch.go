package patch

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// applyMergePatch merges a patch (RFC 7386) into a document. Each value is decoded once and visited once, however deep it stands.
func applyMergePatch(original, patch []byte) ([]byte, error) {
	changes, err := readDocument(patch)
	if err != nil || changes == nil {
		return nil, malformed(patch)
	}
	doc, err := readDocument(original)
	if err != nil {
		return nil, err
	}
	for name := range changes {
		change, _ := changes.field(name)
		if change == nil {
			delete(doc, name)
			continue
		}
		have, _ := doc.field(name)
		doc[name] = merged(have, change)
	}
	patched, err := doc.encode()
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return patched, nil
}

// merged returns have, which is changed, with change merged into it.
func merged(have, change any) any {
	fields, ok := change.(map[string]any)
	if !ok {
		return change
	}
	object, ok := have.(map[string]any)
	if !ok {
		object = make(map[string]any, len(fields))
	}
	for name, value := range fields {
		if value == nil {
			delete(object, name)
			continue
		}
		object[name] = merged(object[name], value)
	}
	return object
}
