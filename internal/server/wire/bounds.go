package wire

import (
	"bytes"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"go.yaml.in/yaml/v3"
)

// Bounds are what a body may ask of whoever decodes it. Its length alone says little: what recurses costs a stack frame and, in some
// decoders, a pass over the rest per level; and a YAML alias repeats in three bytes what may have thousands.
type Bounds struct {
	// Nesting is how deep objects and lists may stand in one another.
	Nesting int
	// Expanded is how many bytes a YAML document with aliases may have once each alias is what it stands for.
	Expanded int
}

// StandardBounds are those of the API. No kind nests a tenth as deep; what expands may be as large as a body that spells all out.
func StandardBounds() Bounds { return Bounds{Nesting: 1000, Expanded: 3 << 20} }

// JSON refuses, with the status to answer with, a JSON document that is nested too deep. It does not look whether it is valid.
func (b Bounds) JSON(doc []byte) error {
	if bytes.Count(doc, []byte{'{'})+bytes.Count(doc, []byte{'['}) <= b.Nesting {
		return nil
	}
	depth, quoted := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > b.Nesting {
				return b.errNesting()
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// YAML refuses, with the status to answer with, a YAML document that is nested too deep or that its aliases make too large. What is
// no YAML passes unless it has aliases: its decoder says what is wrong.
func (b Bounds) YAML(doc []byte) error {
	aliases := bytes.IndexByte(doc, '&') >= 0 && bytes.IndexByte(doc, '*') >= 0
	if !aliases && openers(doc) <= b.Nesting {
		return nil
	}
	var root yaml.Node // aliases stay what they are
	if err := yaml.Unmarshal(doc, &root); err != nil {
		if aliases {
			return apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
		}
		return nil
	}
	e, err := expansion{bounds: b, known: map[*yaml.Node]extent{}}.of(&root)
	switch {
	case err != nil:
		return apierrors.NewBadRequest(err.Error())
	case aliases && e.size > b.Expanded:
		return apierrors.NewBadRequest(fmt.Sprintf("the YAML document has more than %d bytes once its aliases are expanded", b.Expanded))
	case e.depth > b.Nesting:
		return b.errNesting()
	}
	return nil
}

func (b Bounds) errNesting() error {
	return apierrors.NewBadRequest(fmt.Sprintf("the document is nested more than %d levels deep", b.Nesting))
}

// openers bounds how deep a YAML document nests: each level begins with one of these.
func openers(doc []byte) int {
	n := 0
	for _, c := range []byte("-?:[{") {
		n += bytes.Count(doc, []byte{c})
	}
	return n
}

// extent is what a node has once it is expanded; a size above the bound need not be exact.
type extent struct{ size, depth int }

// expansion measures nodes. Aliases point back in the document, so that what they stand for has been measured when they are met.
type expansion struct {
	bounds Bounds
	known  map[*yaml.Node]extent // only of nodes with anchors; a size of -1 while one is being measured
}

func (x expansion) of(n *yaml.Node) (extent, error) {
	if n.Kind == yaml.AliasNode {
		e, measured := x.known[n.Alias]
		if !measured || e.size < 0 {
			return e, errors.New("error decoding YAML: an alias stands within what it stands for")
		}
		return e, nil
	}
	const punctuation = 2 // of each value in JSON, at least
	sum := extent{size: len(n.Value) + punctuation}
	if n.Anchor != "" {
		x.known[n] = extent{size: -1}
	}
	for _, child := range n.Content {
		e, err := x.of(child)
		if err != nil {
			return sum, err
		}
		sum.size = min(sum.size+e.size, x.bounds.Expanded+1)
		sum.depth = max(sum.depth, e.depth)
	}
	if n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode {
		sum.depth = min(sum.depth+1, x.bounds.Nesting+1)
	}
	if n.Anchor != "" {
		x.known[n] = sum
	}
	return sum, nil
}
