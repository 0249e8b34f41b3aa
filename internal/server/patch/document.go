package patch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// document is a JSON object of which only those fields are decoded that a patch comes to: most patches touch one of an object's three.
// The others stay json.RawMessage. Numbers stay as they were written.
type document map[string]any

func readDocument(doc []byte) (document, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(doc, &fields); err != nil {
		return nil, err
	}
	d := make(document, len(fields))
	for k, v := range fields {
		d[k] = v
	}
	return d, nil
}

// field returns a field, decoded from now on.
func (d document) field(name string) (any, bool) {
	v, ok := d[name]
	if raw, encoded := v.(json.RawMessage); encoded {
		v, _ = decodeValue(raw) // it was valid as a part of the document
		d[name] = v
	}
	return v, ok
}

// all decodes what is not yet.
func (d document) all() map[string]any {
	for name := range d {
		d.field(name)
	}
	return d
}

// encode returns the document's JSON, and refuses one that a patch has nested too deep.
func (d document) encode() ([]byte, error) {
	b, err := json.Marshal(map[string]any(d))
	if err != nil {
		return nil, err
	}
	return b, wire.StandardBounds().JSON(b)
}

// decodeValue decodes one JSON value; numbers become json.Number.
func decodeValue(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

// pointer is a JSON pointer (RFC 6901) to a member of an object or list.
type pointer struct {
	text   string
	parent []string
	last   string
}

func parsePointer(text string) (pointer, error) {
	if !strings.HasPrefix(text, "/") {
		return pointer{}, fmt.Errorf("the path %q does not begin with a slash", text)
	}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	tokens := strings.Split(text[1:], "/")
	for i := range tokens {
		tokens[i] = unescape.Replace(tokens[i])
	}
	return pointer{text, tokens[:len(tokens)-1], tokens[len(tokens)-1]}, nil
}

// index returns the place in a list of n elements that a token names; a negative one counts from the end.
func index(token string, n int) (int, error) {
	i, err := strconv.Atoi(token)
	if err != nil {
		return 0, fmt.Errorf("%q is not an index of a list", token)
	}
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		return 0, fmt.Errorf("the list has no element %s", token)
	}
	return i, nil
}
