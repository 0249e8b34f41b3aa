package definition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// In JSON a definition is put together from that of its schemas, which is kept, and that of the rest; and taken apart likewise. The schema with
// index i is a mark meanwhile: {"id":"\u0000i"}.

// schemaKey is what precedes each schema. No string of a definition holds it, for there its quotes would be escaped; and that a schema has a
// property of this name does not matter, since schemas are skipped as a whole.
const schemaKey = `"openAPIV3Schema":`

func mark(i int) *apiextensionsv1.JSONSchemaProps {
	return &apiextensionsv1.JSONSchemaProps{ID: "\x00" + strconv.Itoa(i)}
}

// markText is the JSON of mark(i).
func markText(i int) []byte { return []byte(`{"id":"\u0000` + strconv.Itoa(i) + `"}`) }

// JSON returns the JSON of a definition, with its schemas as they were sent.
func JSON(def *apiextensionsv1.CustomResourceDefinition) ([]byte, error) {
	var texts [][]byte
	size := 0
	bare := *def
	err := eachSchema(&bare, func(s *apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, error) {
		text, err := Text(s)
		size += len(text)
		texts = append(texts, text)
		return mark(len(texts) - 1), err
	})
	if err != nil {
		return nil, err
	}
	rest, err := json.Marshal(&bare)
	if err != nil {
		return nil, fmt.Errorf("writing the definition %s: %w", def.Name, err)
	}
	out := make([]byte, 0, len(rest)+size)
	for i, text := range texts {
		before, after, ok := bytes.Cut(rest, markText(i))
		if !ok {
			return nil, fmt.Errorf("writing the definition %s: it has no schema %d", def.Name, i)
		}
		out = append(append(out, before...), text...)
		rest = after
	}
	return append(out, rest...), nil
}

// Split takes the compact JSON of a definition apart: into that of the definition with marks in place of its schemas, and those of the schemas.
func Split(text []byte) (bare []byte, schemas [][]byte, err error) {
	for {
		at := bytes.Index(text, []byte(schemaKey))
		if at < 0 {
			return append(bare, text...), schemas, nil
		}
		at += len(schemaKey)
		bare, text = append(bare, text[:at]...), text[at:]
		if len(text) == 0 || text[0] != '{' {
			continue
		}
		end := objectEnd(text)
		if end < 0 {
			return nil, nil, fmt.Errorf("reading a definition: its schema has no end")
		}
		bare = append(bare, markText(len(schemas))...)
		schemas, text = append(schemas, text[:end]), text[end:]
	}
}

// objectEnd returns where the JSON object with which text begins ends; -1 if it does not.
func objectEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			n := stringEnd(text[i+1:])
			if n < 0 {
				return -1
			}
			i += n
		}
	}
	return -1
}

// stringEnd returns how long a JSON string is, with its closing quote, after the opening one; -1 if it has no end.
func stringEnd(text []byte) int {
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		escapes := 0
		for i := at - 1; i >= 0 && text[i] == '\\'; i-- {
			escapes++
		}
		at++
		if escapes%2 == 0 {
			return at
		}
	}
}

// Join puts packed schemas in place of the marks of a definition that was read from the first part of Split.
func Join(def *apiextensionsv1.CustomResourceDefinition, schemas [][]byte) error {
	joined := 0
	err := eachSchema(def, func(s *apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, error) {
		if len(s.ID) == 0 || s.ID[0] != 0 {
			return s, nil
		}
		i, err := strconv.Atoi(s.ID[1:])
		if err != nil || i < 0 || i >= len(schemas) {
			return nil, fmt.Errorf("a schema's id is %q", s.ID)
		}
		joined++
		return pack(schemas[i]), nil
	})
	if err == nil && joined != len(schemas) {
		err = fmt.Errorf("%d schemas of %d are where none is expected", len(schemas)-joined, len(schemas))
	}
	return err
}
