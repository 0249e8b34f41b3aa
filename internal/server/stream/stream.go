// Package stream connects the client of exec, attach or port-forward with the runtime's streaming server.
//
// What flows through it: an upgraded HTTP connection on each side. [Relay] copies bytes where both sides speak the same
// protocol (SPDY, WebSocket v4); [Translate] speaks WebSocket v5 with the client (KEP-4006) and SPDY with the runtime, which
// has no half-close over WebSocket; [Tunnel] carries a port-forward's SPDY connection inside a WebSocket (KEP-4006). What
// must stay true: the runtime is asked before the client is told anything, so that its refusal becomes a proper answer; its server
// is the one that the node vouches for, see [Dial]; when one side ends, both are closed, and no goroutine outlives the call.
// Tests: TestDialRefuses, TestDialTrusts; TestExec (internal/server).
package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Protocols of the WebSocket side.
const (
	ProtocolV5     = "v5.channel.k8s.io"
	ProtocolTunnel = "SPDY/3.1+portforward.k8s.io"
)

// Options are the streams of an exec or attach.
type Options struct {
	Stdin, Stdout, Stderr, TTY bool
}

// refusal is an error that came before the client was told anything.
type refusal struct{ err error }

func (r refusal) Error() string { return r.err.Error() }
func (r refusal) Unwrap() error { return r.err }

// Refused tells an error after which the client still waits for an answer.
func Refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// Wants reports whether r asks for a WebSocket with the given subprotocol.
func Wants(r *http.Request, protocol string) bool {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(p) == protocol {
				return true
			}
		}
	}
	return false
}

// upgradeHeaders are those that matter to the other side of an upgrade; credentials are not among them.
var upgradeHeaders = []string{"Connection", "Upgrade", "X-Stream-Protocol-Version", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"}

// upgrade sends an upgrade request with the given headers to target and returns the connection after a 101 answer.
func upgrade(ctx context.Context, target Target, header http.Header) (net.Conn, *bufio.Reader, *http.Response, error) {
	conn, err := target.dial(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodPost, URL: target.URL, Host: target.URL.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if strings.EqualFold(header.Get("Upgrade"), "websocket") {
		req.Method = http.MethodGet
	}
	if err := req.Write(conn); err != nil {
		_ = conn.Close()
		return nil, nil, nil, err
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		_ = conn.Close()
		return nil, nil, nil, fmt.Errorf("the runtime's answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		_ = conn.Close()
		return nil, nil, nil, fmt.Errorf("the runtime refused the stream: %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return conn, br, resp, nil
}

// Relay passes the client's upgrade request on to target as it is and then copies bytes both ways.
func Relay(w http.ResponseWriter, r *http.Request, target Target) error {
	header := http.Header{}
	for _, h := range upgradeHeaders {
		if v := r.Header.Values(h); len(v) > 0 {
			header[http.CanonicalHeaderKey(h)] = v
		}
	}
	backend, fromBackend, resp, err := upgrade(r.Context(), target, header)
	if err != nil {
		return refusal{err}
	}
	defer backend.Close()
	client, fromClient, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return refusal{err}
	}
	defer client.Close()
	if err := writeSwitch(client, resp.Header); err != nil {
		return err
	}
	return join(r.Context(), client, fromClient, backend, fromBackend)
}

// writeSwitch writes a 101 answer with the headers of the runtime's own.
func writeSwitch(w io.Writer, header http.Header) error {
	bw := bufio.NewWriter(w)
	if _, err := bw.WriteString("HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
		return err
	}
	if err := header.Write(bw); err != nil {
		return err
	}
	if _, err := bw.WriteString("\r\n"); err != nil {
		return err
	}
	return bw.Flush()
}

// lingering is how long a client may take to close its side once it has been given everything.
const lingering = 5 * time.Second

// join copies between a client's connection a and the backend's, b, whose first bytes may be buffered, until the backend ends or the client
// goes; then it closes both. What the backend said before it ended reaches the client, also when the client is still writing: the backend's
// refusal of that is no reason to stop reading it, and closing a connection with bytes that nobody has read makes the other side
// throw away what it has not read yet (RFC 9112, section 9.6).
func join(ctx context.Context, a net.Conn, fromA io.Reader, b net.Conn, fromB io.Reader) error {
	closeBoth := func() { _, _ = a.Close(), b.Close() }
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	gone := make(chan error, 1)
	go func() {
		from := &source{Reader: fromA}
		if _, _ = io.Copy(b, from); from.err == nil { // the backend takes nothing any longer
			_, _ = io.Copy(io.Discard, from)
		}
		_ = b.Close() // the client has gone, and what it wanted with it
		gone <- from.err
	}()
	// A reset is an end like another: a backend that closes with bytes unread resets its connection after its last byte.
	said := &source{Reader: fromB}
	_, err := io.Copy(a, said)
	if half, ok := a.(interface{ CloseWrite() error }); ok && said.err != nil && half.CloseWrite() == nil {
		_ = a.SetReadDeadline(time.Now().Add(lingering))
	} else {
		closeBoth()
	}
	left := <-gone
	closeBoth()
	for _, e := range []error{err, left} {
		if e != nil && !errors.Is(e, io.EOF) && !errors.Is(e, io.ErrClosedPipe) && !errors.Is(e, net.ErrClosed) && !errors.Is(e, os.ErrDeadlineExceeded) {
			return e // how else one ends is how streams end
		}
	}
	return nil
}

// source is a reader that remembers how it ended.
type source struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if err != nil {
		s.err = err
	}
	return n, err
}
