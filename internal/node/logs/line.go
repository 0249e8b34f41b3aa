package logs

import (
	"bytes"
	"fmt"
	"time"
)

// line is one parsed line of a CRI log.
type line struct {
	time    time.Time
	stamp   []byte // time as written
	stream  string
	partial bool
	text    []byte // with its newline, unless partial
}

// parse reads one line, which ends in a newline.
func parse(b []byte) (line, error) {
	var l line
	stamp, rest, ok := bytes.Cut(b, []byte(" "))
	if !ok {
		return l, fmt.Errorf("log line without time: %.80q", b)
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return l, fmt.Errorf("log line: %w", err)
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || (string(stream) != "stdout" && string(stream) != "stderr") {
		return l, fmt.Errorf("log line without stream: %.80q", b)
	}
	tags, text, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return l, fmt.Errorf("log line without tag: %.80q", b)
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	l = line{time: t, stamp: stamp, stream: string(stream), partial: string(tag) == "P", text: text}
	if l.partial {
		l.text = bytes.TrimSuffix(text, []byte("\n"))
	}
	return l, nil
}
