package wire

import (
	"bufio"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// MessageList is a list in protobuf that is written item by item. Protobuf announces lengths, so each item is asked for twice: for its size
// and for its bytes. What is held in memory is one item, however many there are.
type MessageList struct {
	gvk   schema.GroupVersionKind
	meta  []byte
	sizes []int
	item  func(i int) (runtime.Object, error)
	size  int // of the list without its envelope
}

// NewMessageList measures a list of kind gvk with n items. item must return the same each time it is called for the same i.
func NewMessageList(gvk schema.GroupVersionKind, meta metav1.ListMeta, n int, item func(i int) (runtime.Object, error)) (*MessageList, error) {
	m, err := meta.Marshal()
	if err != nil {
		return nil, err
	}
	l := &MessageList{gvk: gvk, meta: m, sizes: make([]int, n), item: item, size: 1 + lenVarint(len(m)) + len(m)}
	for i := range l.sizes {
		message, err := l.message(i)
		if err != nil {
			return nil, err
		}
		size := message.Size()
		l.sizes[i] = size
		l.size += 1 + lenVarint(size) + size
	}
	return l, nil
}

func (l *MessageList) message(i int) (marshaler, error) {
	obj, err := l.item(i)
	if err != nil {
		return nil, err
	}
	message, ok := obj.(marshaler)
	if !ok {
		return nil, fmt.Errorf("%T cannot be written as protobuf", obj)
	}
	return message, nil
}

// Size is how long the list is, its envelope aside.
func (l *MessageList) Size() int { return l.size }

// Write writes the list.
func (l *MessageList) Write(w io.Writer) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	metaTag, itemTag := byte(0x0a), byte(0x12)
	if l.gvk == metav1beta1.SchemeGroupVersion.WithKind("PartialObjectMetadataList") { // the one list that has its items first
		metaTag, itemTag = itemTag, metaTag
	}
	if _, err := bw.Write(appendBytes(appendListHead(nil, l.gvk, l.size), metaTag, l.meta)); err != nil {
		return err
	}
	var b []byte
	for i, size := range l.sizes {
		message, err := l.message(i)
		if err != nil {
			return err
		}
		b = appendVarint(append(b[:0], itemTag), size)
		if _, err := bw.Write(b); err != nil {
			return err
		}
		if cap(b) < size {
			b = make([]byte, size)
		}
		b = b[:size]
		n, err := message.MarshalToSizedBuffer(b)
		if err != nil {
			return err
		}
		if n != size {
			return fmt.Errorf("an item that should have %d bytes has %d", size, n)
		}
		if _, err := bw.Write(b); err != nil {
			return err
		}
	}
	if _, err := bw.Write(unknownTail); err != nil {
		return err
	}
	return bw.Flush()
}
