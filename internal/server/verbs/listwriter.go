package verbs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// listWriter sends a list - of items, or of a table's rows - element by element in JSON, YAML or CBOR: what it holds is one element,
// however many there are.
type listWriter struct {
	c       *call.Call
	w       *bufio.Writer
	close   func()
	n, want int
	format  wire.Format
	deep    bool   // JSON is indented
	tail    []byte // what follows the list
}

// elementSize is what an element of a list has in bytes, about: it decides whether the answer is compressed.
const elementSize = 1 << 10

// newListWriter begins the answer: a list of kind gvk whose n elements are the field named key.
func newListWriter(c *call.Call, gvk schema.GroupVersionKind, key string, n int, fields ...wire.Field) (*listWriter, error) {
	w := &listWriter{c: c, want: n, format: c.Accept.Format, deep: c.Pretty()}
	fields = append([]wire.Field{{Name: "kind", Value: gvk.Kind}, {Name: "apiVersion", Value: gvk.GroupVersion().String()}}, fields...)
	head, err := w.head(key, fields)
	if err != nil {
		return nil, err
	}
	out, done := c.Begin(http.StatusOK, c.Accept.Format.MediaType(), n*elementSize)
	w.w, w.close = bufio.NewWriterSize(out, 64<<10), done
	_, err = w.w.Write(head)
	return w, err
}

// head is what precedes the elements; it sets the tail.
func (w *listWriter) head(key string, fields []wire.Field) (head []byte, err error) {
	switch w.format {
	case wire.CBOR:
		head, w.tail, err = wire.CBORList(key, w.want, fields)
		return head, err
	case wire.YAML:
		return w.headYAML(key, fields)
	}
	return w.headJSON(key, fields)
}

// headYAML is head with the fields in order of their names, as everywhere in YAML.
func (w *listWriter) headYAML(key string, fields []wire.Field) ([]byte, error) {
	before, after := map[string]any{}, map[string]any{}
	for _, f := range fields {
		if f.Name < key {
			before[f.Name] = f.Value
		} else {
			after[f.Name] = f.Value
		}
	}
	head, err := yaml.Marshal(before)
	if err != nil {
		return nil, err
	}
	if len(after) > 0 {
		w.tail, err = yaml.Marshal(after)
	}
	return append(head, key+":"...), err
}

func (w *listWriter) headJSON(key string, fields []wire.Field) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, f := range fields {
		v, err := json.Marshal(f.Value)
		if err != nil {
			return nil, err
		}
		b.WriteString(strconv.Quote(f.Name) + ":")
		b.Write(v)
		b.WriteByte(',')
	}
	b.WriteString(strconv.Quote(key) + ":[")
	if !w.deep {
		w.tail = []byte("]}\n")
		return b.Bytes(), nil
	}
	b.WriteString("]}")
	var deep bytes.Buffer
	if err := json.Indent(&deep, b.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	w.tail = []byte("]\n}\n")
	return bytes.TrimSuffix(deep.Bytes(), []byte("]\n}")), nil
}

// item sends one element: a document in the format of the answer.
func (w *listWriter) item(b []byte) error {
	if err := w.c.R.Context().Err(); err != nil {
		return err // nobody waits for the rest
	}
	if w.n++; w.n%madeAtOnce == 0 {
		w.c.GiveWay()
	}
	switch {
	case w.format == wire.CBOR:
		b = wire.CBORPart(b)
	case w.format == wire.YAML:
		if w.n == 1 {
			b = append([]byte("\n- "), indent(b)...)
		} else {
			b = append([]byte("- "), indent(b)...)
		}
	case w.deep:
		var deep bytes.Buffer
		if w.n > 1 {
			deep.WriteByte(',')
		}
		deep.WriteString("\n    ")
		if err := json.Indent(&deep, b, "    ", "  "); err != nil {
			return err
		}
		b = deep.Bytes()
	case w.n > 1:
		if err := w.w.WriteByte(','); err != nil {
			return err
		}
	}
	_, err := w.w.Write(b)
	return err
}

// indent moves the lines of an element below its dash. Empty lines belong to block scalars and stay empty.
func indent(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/8)
	for line := range bytes.Lines(b) {
		if len(out) > 0 && len(line) > 1 {
			out = append(out, "  "...)
		}
		out = append(out, line...)
	}
	return out
}

// end sends the rest.
func (w *listWriter) end() error {
	if w.n != w.want { // CBOR has announced them
		return w.abort(fmt.Errorf("the list has %d elements, not %d", w.n, w.want))
	}
	defer w.close()
	switch {
	case w.format == wire.YAML && w.n == 0:
		_, _ = w.w.WriteString(" []\n") // errors are those of the last flush
	case w.format == wire.JSON && w.deep && w.n > 0:
		_, _ = w.w.WriteString("\n  ")
	}
	_, _ = w.w.Write(w.tail)
	if err := w.w.Flush(); err != nil {
		w.c.Log.Debug("a client went away during a list", "path", w.c.R.URL.Path, "err", err)
	}
	return nil
}

// abort breaks the answer off.
func (w *listWriter) abort(err error) error { return breakOff(w.c, err) }
