package connect

import (
	"encoding/base64"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// WebSocket subprotocols in which a log can be read: each message is a piece of it.
const (
	protocolBinary = "binary.k8s.io"
	protocolBase64 = "base64.binary.k8s.io"
)

// wantsLogSocket reports whether a client, a browser perhaps, reads a log over a WebSocket.
func wantsLogSocket(r *http.Request) bool {
	return stream.Wants(r, protocolBinary) || stream.Wants(r, protocolBase64)
}

// logSocket writes a log as messages. The connection is upgraded with the first piece, so that errors before it can still be answered.
type logSocket struct {
	c       *call.Call
	gone    func() // ends the log when the client has gone, which a followed log without new lines would never see
	ws      *websocket.Conn
	reading sync.WaitGroup
}

func (s *logSocket) open() (err error) {
	up := websocket.Upgrader{
		Subprotocols: []string{protocolBinary, protocolBase64},
		// Clients that are no browsers send any origin. Credentials say who sends a request, never a cookie.
		CheckOrigin: func(*http.Request) bool { return true },
	}
	s.c.W.Header().Del("Warning")
	s.c.W.Code = http.StatusSwitchingProtocols // from here on the upgrader answers
	if s.ws, err = up.Upgrade(s.c.W.ResponseWriter, s.c.R, nil); err != nil {
		return err
	}
	s.reading.Go(func() {
		for {
			if _, _, err := s.ws.NextReader(); err != nil {
				s.gone()
				return
			}
		}
	})
	return nil
}

func (s *logSocket) Write(b []byte) (int, error) {
	if s.ws == nil {
		if err := s.open(); err != nil {
			return 0, err
		}
	}
	kind, message := websocket.BinaryMessage, b
	if s.ws.Subprotocol() == protocolBase64 {
		kind, message = websocket.TextMessage, []byte(base64.StdEncoding.EncodeToString(b))
	}
	if err := s.ws.WriteMessage(kind, message); err != nil {
		return 0, err
	}
	return len(b), nil
}

// end closes the connection: normally, or so that the client sees that this is not the end of the log.
func (s *logSocket) end(failed error) error {
	if s.ws == nil {
		if failed != nil {
			return nodeError(failed)
		}
		if err := s.open(); err != nil {
			return nil // the upgrader has answered
		}
	}
	defer s.reading.Wait()
	defer s.ws.Close()
	code := websocket.CloseNormalClosure
	if failed != nil {
		code = websocket.CloseInternalServerErr
	}
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(5*time.Second))
	return nil
}
