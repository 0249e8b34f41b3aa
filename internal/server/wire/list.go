package wire

import (
	"bufio"
	"encoding/json"
	"io"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// WriteList writes a list of kind gvk (PodList) whose items are already bytes of [Item], without decoding or copying them
// together first. It serves JSON and protobuf; all generated lists of stored kinds carry their metadata as field 1 and items as field 2.
func WriteList(w io.Writer, gvk schema.GroupVersionKind, meta metav1.ListMeta, items [][]byte, f Format) error {
	bw, ok := w.(*bufio.Writer)
	if !ok {
		size := 512
		for _, it := range items {
			if size += len(it) + 8; size >= 64<<10 {
				size = 64 << 10
				break
			}
		}
		bw = bufio.NewWriterSize(w, size)
	}
	if f == Protobuf {
		if err := writeListProto(bw, gvk, meta, items); err != nil {
			return err
		}
		return bw.Flush()
	}
	if err := writeListJSON(bw, gvk, meta, items); err != nil {
		return err
	}
	return bw.Flush()
}

func writeListJSON(w *bufio.Writer, gvk schema.GroupVersionKind, meta metav1.ListMeta, items [][]byte) error {
	m, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	head := make([]byte, 0, 256)
	head = append(head, `{"kind":`...)
	head = strconv.AppendQuote(head, gvk.Kind)
	head = append(head, `,"apiVersion":`...)
	head = strconv.AppendQuote(head, gvk.GroupVersion().String())
	head = append(append(append(head, `,"metadata":`...), m...), `,"items":[`...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	for i, it := range items {
		if i > 0 {
			if err := w.WriteByte(','); err != nil {
				return err
			}
		}
		if _, err := w.Write(it); err != nil {
			return err
		}
	}
	_, err = w.WriteString("]}\n")
	return err
}

func writeListProto(w *bufio.Writer, gvk schema.GroupVersionKind, meta metav1.ListMeta, items [][]byte) error {
	m, err := meta.Marshal()
	if err != nil {
		return err
	}
	raw := 1 + lenVarint(len(m)) + len(m)
	for _, it := range items {
		raw += 1 + lenVarint(len(it)) + len(it)
	}
	head := appendBytes(appendListHead(make([]byte, 0, 256), gvk, raw), 0x0a, m)
	if _, err := w.Write(head); err != nil {
		return err
	}
	var tag [12]byte
	for _, it := range items {
		if _, err := w.Write(appendVarint(append(tag[:0], 0x12), len(it))); err != nil {
			return err
		}
		if _, err := w.Write(it); err != nil {
			return err
		}
	}
	_, err = w.Write(unknownTail)
	return err
}

// appendListHead appends what precedes the fields of a list that has size bytes: the beginning of its envelope.
func appendListHead(b []byte, gvk schema.GroupVersionKind, size int) []byte {
	apiVersion := gvk.GroupVersion().String()
	meta := 1 + lenVarint(len(apiVersion)) + len(apiVersion) + 1 + lenVarint(len(gvk.Kind)) + len(gvk.Kind)
	b = appendVarint(append(append(b, protoMagic...), 0x0a), meta)
	b = appendBytes(b, 0x0a, apiVersion)
	b = appendBytes(b, 0x12, gvk.Kind)
	return appendVarint(append(b, 0x12), size)
}
