package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	spdyexec "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

// Channels of a message: its first byte.
const (
	chanStdin  = 0
	chanStdout = 1
	chanStderr = 2
	chanError  = 3
	chanResize = 4
	chanClose  = 255 // v5: the channel named by the next byte has ended
)

// Translate speaks WebSocket v5 with the client and SPDY with the runtime at target.
func Translate(w http.ResponseWriter, r *http.Request, target Target, opts Options, log *slog.Logger) error {
	transport := &spdyTransport{target: target}
	executor, err := spdyexec.NewSPDYExecutorForTransports(transport, spdy.NewUpgraderForStreaming(transport), http.MethodPost, target.URL)
	if err != nil {
		return refusal{err}
	}
	ws, err := (&websocket.Upgrader{Subprotocols: []string{ProtocolV5}, ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10}).Upgrade(w, r, nil)
	if err != nil {
		return err // the upgrader has answered
	}
	defer ws.Close()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()

	t := &translator{ws: ws, cancel: cancel, sizes: make(chan *spdyexec.TerminalSize, 8)}
	stdin, feed := io.Pipe()
	var reading sync.WaitGroup
	reading.Go(func() { t.read(feed, opts.Stdin) })

	so := spdyexec.StreamOptions{Tty: opts.TTY}
	if opts.Stdin {
		so.Stdin = stdin
	}
	if opts.Stdout {
		so.Stdout = channelWriter{t, chanStdout}
	}
	if opts.Stderr {
		so.Stderr = channelWriter{t, chanStderr}
	}
	if opts.TTY {
		so.TerminalSizeQueue = sizeQueue{ctx, t.sizes}
	}
	// An empty message tells the client that its connection stands, as Kubernetes does.
	first := byte(chanError)
	switch {
	case opts.Stdout:
		first = chanStdout
	case opts.Stderr:
		first = chanStderr
	}
	_, err = channelWriter{t, first}.Write(nil)
	if err == nil {
		err = executor.StreamWithContext(ctx, so)
		if !exited(err) && ctx.Err() == nil {
			log.Warn("exec or attach failed", "path", r.URL.Path, "err", err)
		}
		err = t.finish(err)
	}
	_ = feed.Close() // ends a reader that waits for the command to take its input
	_ = ws.Close()
	reading.Wait()
	return err
}

func exited(err error) bool {
	var code utilexec.ExitError
	return err == nil || errors.As(err, &code)
}

// translator is the WebSocket side.
type translator struct {
	ws     *websocket.Conn
	cancel context.CancelFunc
	sizes  chan *spdyexec.TerminalSize
	mu     sync.Mutex // writes
}

// read takes the client's messages apart until it goes away, which ends the command's connection too.
func (t *translator) read(stdin *io.PipeWriter, wanted bool) {
	defer t.cancel()
	defer stdin.Close()
	for {
		kind, msg, err := t.ws.ReadMessage()
		if err != nil {
			return
		}
		if len(msg) == 0 || kind != websocket.BinaryMessage {
			continue
		}
		switch msg[0] {
		case chanStdin:
			if wanted {
				// An error means that the command has ended; the client learns it from the status.
				_, _ = stdin.Write(msg[1:])
			}
		case chanResize:
			var size spdyexec.TerminalSize
			if json.Unmarshal(msg[1:], &size) == nil {
				select {
				case t.sizes <- &size:
				default: // the terminal is not keeping up; the next size will do
				}
			}
		case chanClose:
			if len(msg) > 1 && msg[1] == chanStdin {
				_ = stdin.Close()
			}
		}
	}
}

// finish sends how the command ended and closes the WebSocket.
func (t *translator) finish(result error) error {
	b, err := json.Marshal(statusOf(result))
	if err != nil {
		return err
	}
	if _, err := (channelWriter{t, chanError}).Write(b); err != nil {
		return err
	}
	return t.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeWithin))
}

// statusOf tells a command's end as a client of v4 and v5 expects it.
func statusOf(err error) *metav1.Status {
	if err == nil {
		return &metav1.Status{Status: metav1.StatusSuccess}
	}
	var code utilexec.ExitError
	if errors.As(err, &code) && code.Exited() {
		return &metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", err),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code.ExitStatus())}}},
		}
	}
	return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
}

// channelWriter writes messages of one channel.
type channelWriter struct {
	t       *translator
	channel byte
}

func (c channelWriter) Write(b []byte) (int, error) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	w, err := c.t.ws.NextWriter(websocket.BinaryMessage)
	if err != nil {
		return 0, err
	}
	if _, err := w.Write([]byte{c.channel}); err != nil {
		return 0, err
	}
	n, err := w.Write(b)
	if err != nil {
		return n, err
	}
	return n, w.Close()
}

// sizeQueue gives the terminal's sizes to the SPDY side.
type sizeQueue struct {
	ctx   context.Context
	sizes chan *spdyexec.TerminalSize
}

func (q sizeQueue) Next() *spdyexec.TerminalSize {
	select {
	case s := <-q.sizes:
		return s
	case <-q.ctx.Done():
		return nil
	}
}
