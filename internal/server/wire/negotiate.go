package wire

import (
	"slices"
	"sort"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Accepted is one form in which a client takes an answer.
type Accepted struct {
	Format Format
	// As is the kind into which objects are to be turned (Table, PartialObjectMetadata, ...); empty for none.
	As schema.GroupVersionKind
	// Stream is "watch" where the client named it.
	Stream string
}

// Negotiate returns the first form of the Accept header, by weight and then by order, that the server has and allow lets
// through (nil: no transformation is offered). Objects that are not transformed have no form in the formats without. ok is false where there is none:
// the answer is 406.
func Negotiate(header string, allow func(Accepted) bool, without ...Format) (Accepted, bool) {
	switch header {
	case "", "*/*", TypeJSON:
		return Accepted{}, true
	case TypeProtobuf:
		return Accepted{Format: Protobuf}, !slices.Contains(without, Protobuf)
	}
	for _, c := range clauses(header) {
		a, ok := c.accepted()
		if !ok {
			continue
		}
		if a.As.Kind != "" && (allow == nil || !allow(a)) {
			continue
		}
		if a.As.Kind == "" && slices.Contains(without, a.Format) {
			continue
		}
		return a, true
	}
	return Accepted{}, false
}

// clause is one media range of an Accept header (RFC 9110 section 12.5.1).
type clause struct {
	media  string
	params map[string]string
	q      float64
}

func clauses(header string) []clause {
	var out []clause
	for part := range strings.SplitSeq(header, ",") {
		fields := strings.Split(part, ";")
		c := clause{media: strings.ToLower(strings.TrimSpace(fields[0])), q: 1}
		if c.media == "" {
			continue
		}
		for _, f := range fields[1:] {
			k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
			k, v = strings.ToLower(strings.TrimSpace(k)), strings.Trim(strings.TrimSpace(v), `"`)
			if k == "q" {
				if q, err := strconv.ParseFloat(v, 64); err == nil {
					c.q = q
				}
				continue
			}
			if c.params == nil {
				c.params = map[string]string{}
			}
			c.params[k] = v
		}
		if c.q > 0 {
			out = append(out, c)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].q > out[j].q })
	return out
}

func (c clause) accepted() (Accepted, bool) {
	var a Accepted
	switch c.media {
	case "*/*", "application/*", TypeJSON:
	case TypeYAML:
		a.Format = YAML
	case TypeProtobuf:
		a.Format = Protobuf
	case TypeCBOR, TypeCBORSeq:
		a.Format = CBOR
	default:
		return a, false
	}
	a.Stream = c.params["stream"]
	if as := c.params["as"]; as != "" {
		a.As = schema.GroupVersionKind{Group: c.params["g"], Version: c.params["v"], Kind: as}
	}
	return a, true
}
