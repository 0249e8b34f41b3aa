package call

import (
	"fmt"
	"net/http"
	"strings"
)

// Recorder notes what was answered.
type Recorder struct {
	http.ResponseWriter
	// Code is the HTTP status, 0 as long as the answer has not begun.
	Code int
	// Bytes counts the body.
	Bytes int
}

// WriteHeader implements http.ResponseWriter.
func (w *Recorder) WriteHeader(code int) {
	if w.Code == 0 || w.Code < 200 {
		w.Code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *Recorder) Write(b []byte) (int, error) {
	if w.Code == 0 {
		w.Code = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.Bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach Flush and Hijack.
func (w *Recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Warnings puts warnings into Warning headers (KEP-1693), each once, as long as they fit.
type Warnings struct {
	Header http.Header
	size   int
}

// AddWarning implements warning.Recorder.
func (w *Warnings) AddWarning(agent, text string) {
	const most = 4096
	if agent == "" {
		agent = "-"
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
	line := fmt.Sprintf("299 %s %s", agent, quote(text))
	for _, have := range w.Header.Values("Warning") {
		if have == line {
			return
		}
	}
	if w.size += len(line); w.size > most {
		return
	}
	w.Header.Add("Warning", line)
}

// quote writes a quoted-string (RFC 9110 section 5.6.4).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
