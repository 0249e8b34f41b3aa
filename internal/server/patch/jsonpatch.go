package patch

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"encoding/json"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kjson "sigs.k8s.io/json"
)

// limits bound what a JSON patch (RFC 6902) may ask for: 1 kB of it could copy a document into itself until memory ends.
type limits struct {
	operations int
	copied     int // bytes of JSON that all copies have together
	shifted    int // elements of lists that make or fill room for others
}

// standardLimits are Kubernetes' (https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply, and since CVE-2019-1002100 for
// copies), which does not bound shifts.
func standardLimits() limits { return limits{operations: 10000, copied: 3 << 20, shifted: 1 << 26} }

// operation is one step of a JSON patch.
type operation struct {
	Op    string          `json:"op"`
	Path  *string         `json:"path"`
	From  *string         `json:"from"`
	Value json.RawMessage `json:"value"`
}

// errTooMuch tells that a patch asks for more than its limits.
type errTooMuch string

func (e errTooMuch) Error() string { return string(e) }

// jsonPatch is a JSON patch being applied.
type jsonPatch struct {
	doc    document
	limits limits // what is left of them
}

func applyJSONPatch(original, patch []byte, l limits) ([]byte, error) {
	var ops []operation
	if err := kjson.UnmarshalCaseSensitivePreserveInts(patch, &ops); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(ops) > l.operations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", l.operations, len(ops)))
	}
	doc, err := readDocument(original)
	if err != nil {
		return nil, err
	}
	p := jsonPatch{doc: doc, limits: l}
	for i := range ops {
		if err := p.apply(&ops[i]); err != nil {
			return nil, unprocessable(fmt.Errorf("operation %d (%s): %w", i, ops[i].Op, err))
		}
	}
	patched, err := p.doc.encode()
	if err != nil {
		return nil, unprocessable(err)
	}
	return patched, nil
}

func (p *jsonPatch) apply(op *operation) error {
	if op.Path == nil {
		return errors.New("it has no path")
	}
	switch op.Op {
	case "add", "replace", "test":
		value, err := any(nil), error(nil)
		if op.Value != nil {
			if value, err = decodeValue(op.Value); err != nil {
				return err
			}
		}
		return p.put(op.Op, *op.Path, value)
	case "remove":
		path, err := parsePointer(*op.Path)
		if err != nil {
			return err
		}
		_, err = p.remove(path)
		return err
	case "move", "copy":
		if op.From == nil {
			return errors.New("it has no from")
		}
		return p.transfer(op.Op == "move", *op.From, *op.Path)
	}
	return errors.New("there is no such operation")
}

// put carries out the operations that bring a value.
func (p *jsonPatch) put(op, at string, value any) error {
	if at == "" && op != "add" {
		return p.whole(op, value)
	}
	path, err := parsePointer(at)
	if err != nil {
		return err
	}
	switch op {
	case "add":
		return p.add(path, value)
	case "replace":
		return p.replace(path, value)
	}
	have, err := p.get(path)
	if err == nil && !equal(have, value) {
		err = fmt.Errorf("testing value %s failed: test failed", path.text) // as Kubernetes words it
	}
	return err
}

// whole replaces or tests the document itself.
func (p *jsonPatch) whole(op string, value any) error {
	object, ok := value.(map[string]any)
	switch {
	case op == "replace" && !ok:
		return errors.New("the document must be an object")
	case op == "replace":
		p.doc = object
	case !ok || !equal(p.doc.all(), object):
		return errors.New("testing value of the document failed: test failed")
	}
	return nil
}

// transfer moves or copies a value.
func (p *jsonPatch) transfer(move bool, from, to string) error {
	source, err := parsePointer(from)
	if err != nil {
		return err
	}
	target, err := parsePointer(to)
	if err != nil {
		return err
	}
	var value any
	if move {
		value, err = p.remove(source)
	} else if value, err = p.get(source); err == nil {
		value, err = p.copied(value)
	}
	if err != nil {
		return err
	}
	return p.add(target, value)
}

// copied returns a copy of value, within what is left for copies.
func (p *jsonPatch) copied(value any) (any, error) {
	spend := func(n int) error {
		if p.limits.copied -= n; p.limits.copied < 0 {
			return errTooMuch("the patch copies too much")
		}
		return nil
	}
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			if err := spend(len(k) + len(`"":,`)); err != nil {
				return nil, err
			}
			c, err := p.copied(e)
			if err != nil {
				return nil, err
			}
			out[k] = c
		}
		return out, spend(len("{}"))
	case []any:
		if err := spend(len(v) + len("[]")); err != nil {
			return nil, err
		}
		out := make([]any, len(v))
		for i, e := range v {
			c, err := p.copied(e)
			if err != nil {
				return nil, err
			}
			out[i] = c
		}
		return out, nil
	case string:
		return v, spend(len(v) + len(`""`))
	case json.Number:
		return v, spend(len(v))
	}
	return value, spend(len("null"))
}

// equal reports whether two values are the same (RFC 6902 section 4.6).
func equal(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, equal)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	case json.Number:
		y, ok := b.(json.Number)
		return ok && sameNumber(x, y)
	}
	switch b.(type) {
	case map[string]any, []any:
		return false
	}
	return a == b
}

func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	if _, err := a.Int64(); err == nil {
		if _, err := b.Int64(); err == nil {
			return false // floats would blur large ones
		}
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}
