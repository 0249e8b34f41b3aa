package logs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/amount"
)

// followEvery is how often a follower looks for more. Only a client that is following pays for it.
const followEvery = 100 * time.Millisecond

// Copy writes the log at path to w as opts ask. When following, it ends once done tells that the container writes no more and
// all has been read; done may be nil otherwise.
func Copy(ctx context.Context, path string, opts *corev1.PodLogOptions, now time.Time, w io.Writer, done func() bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	if opts.TailLines != nil {
		off, err := tailOffset(f, *opts.TailLines)
		if err != nil {
			return err
		}
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return err
		}
	}
	out := newWriter(w, opts, now)
	r := bufio.NewReaderSize(f, 64<<10)
	var rest []byte // an unfinished line
	ended := false
	for {
		b, err := r.ReadBytes('\n')
		rest = append(rest, b...)
		switch {
		case err == nil:
			if stop, err := out.line(rest); stop || err != nil {
				return err
			}
			rest = rest[:0]
			continue
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("reading log %s: %w", path, err)
		}
		if err := out.flush(); err != nil {
			return err
		}
		if !opts.Follow || ended {
			return nil
		}
		if next := rotated(path, f); next != nil {
			// What was written to the old file before the runtime let go of it was read above.
			f.Close()
			f = next
			r.Reset(f)
			rest = rest[:0]
			continue
		}
		// Read once more after the end is known: the last lines may have come in between.
		if ended = done != nil && done(); ended {
			continue
		}
		if err := sleep(ctx, followEvery); err != nil {
			return nil // the client went away
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// rotated returns the new file at path if f is not it any more.
func rotated(path string, f *os.File) *os.File {
	a, err := f.Stat()
	if err != nil {
		return nil
	}
	b, err := os.Stat(path)
	if err != nil || os.SameFile(a, b) {
		return nil
	}
	next, err := os.Open(path)
	if err != nil {
		return nil
	}
	return next
}

// tailOffset returns where the last n lines begin.
func tailOffset(f *os.File, n int64) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n <= 0 {
		return end, err
	}
	const block = 16 << 10
	buf := make([]byte, block)
	seen := int64(0)
	for right := end; right > 0; {
		left := max(right-block, 0)
		part := buf[:right-left]
		if _, err := f.ReadAt(part, left); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			if part[i] != '\n' || left+int64(i) == end-1 {
				continue
			}
			if seen++; seen == n {
				return left + int64(i) + 1, nil
			}
		}
		right = left
	}
	return 0, nil
}

// writer filters and formats lines.
type writer struct {
	w       *bufio.Writer
	since   time.Time
	stamps  bool
	stream  string
	left    int64
	limited bool
	middle  bool // the last line was partial: no time stamp within it
}

func newWriter(w io.Writer, opts *corev1.PodLogOptions, now time.Time) *writer {
	out := &writer{w: bufio.NewWriterSize(w, 32<<10), stamps: opts.Timestamps}
	if opts.SinceSeconds != nil {
		out.since = now.Add(-amount.Seconds(*opts.SinceSeconds))
	}
	if opts.SinceTime != nil {
		out.since = opts.SinceTime.Time
	}
	if opts.LimitBytes != nil {
		out.limited, out.left = true, *opts.LimitBytes
	}
	if opts.Stream != nil && *opts.Stream != corev1.LogStreamAll {
		out.stream = map[string]string{corev1.LogStreamStdout: "stdout", corev1.LogStreamStderr: "stderr"}[*opts.Stream]
	}
	return out
}

// line writes one line and reports whether the limit is reached. A line that is no CRI log line is left out.
func (o *writer) line(b []byte) (stop bool, err error) {
	l, err := parse(b)
	if err != nil {
		return false, nil
	}
	if l.time.Before(o.since) || (o.stream != "" && l.stream != o.stream) {
		return false, nil
	}
	if o.stamps && !o.middle {
		if stop, err = o.write(append(append([]byte(nil), l.stamp...), ' ')); stop || err != nil {
			return stop, err
		}
	}
	o.middle = l.partial
	return o.write(l.text)
}

func (o *writer) write(b []byte) (stop bool, err error) {
	if o.limited {
		if int64(len(b)) >= o.left {
			b, stop = b[:o.left], true
		}
		o.left -= int64(len(b))
	}
	if _, err = o.w.Write(b); err == nil && stop {
		err = o.flush()
	}
	return stop, err
}

func (o *writer) flush() error { return o.w.Flush() }

// Tail returns at most the last lines and bytes of a log's text, for termination messages.
func Tail(path string, lines, bytes int64) string {
	var b clipped
	opts := &corev1.PodLogOptions{TailLines: &lines}
	if err := Copy(context.Background(), path, opts, time.Time{}, &b, nil); err != nil {
		return ""
	}
	if int64(len(b)) > bytes {
		b = b[int64(len(b))-bytes:]
	}
	return string(b)
}

type clipped []byte

func (c *clipped) Write(p []byte) (int, error) { *c = append(*c, p...); return len(p), nil }
