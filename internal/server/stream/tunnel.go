package stream

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// closeWithin bounds how long a last message may take.
const closeWithin = 5 * time.Second

// Tunnel upgrades the client's connection to a WebSocket whose binary messages are the bytes of an SPDY connection with target.
func Tunnel(w http.ResponseWriter, r *http.Request, target Target) error {
	header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"SPDY/3.1"}, "X-Stream-Protocol-Version": {"portforward.k8s.io"}}
	backend, fromBackend, _, err := upgrade(r.Context(), target, header)
	if err != nil {
		return refusal{err}
	}
	defer backend.Close()
	ws, err := (&websocket.Upgrader{Subprotocols: []string{ProtocolTunnel}, ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10}).Upgrade(w, r, nil)
	if err != nil {
		return err // the upgrader has answered
	}
	c := &messageConn{Conn: ws.NetConn(), ws: ws}
	return join(r.Context(), c, c, backend, fromBackend)
}

// messageConn is a WebSocket as a stream of bytes.
type messageConn struct {
	net.Conn // addresses and deadlines
	ws       *websocket.Conn
	message  io.Reader
	mu       sync.Mutex
	closed   bool
}

func (c *messageConn) Read(b []byte) (int, error) {
	for {
		if c.message == nil {
			kind, m, err := c.ws.NextReader()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("a tunnelled connection carries binary messages only")
			}
			c.message = m
		}
		n, err := c.message.Read(b)
		if err == io.EOF {
			c.message = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

func (c *messageConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ws.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close says goodbye and closes the connection.
func (c *messageConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeWithin))
	return c.ws.Close()
}
