package server_test

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// A log can be read over a WebSocket, by clients of any origin, in bytes or in base64.
func TestLogsOverWebSocket(t *testing.T) {
	f := startWithNode(t)
	url := "ws" + strings.TrimPrefix(f.url, "http") + "/api/v1/namespaces/default/pods/a/log"
	for protocol, decode := range map[string]func(string) ([]byte, error){
		"binary.k8s.io":        func(s string) ([]byte, error) { return []byte(s), nil },
		"base64.binary.k8s.io": base64.StdEncoding.DecodeString,
	} {
		trust := f.http.Transport.(*http.Transport).TLSClientConfig
		d := websocket.Dialer{Subprotocols: []string{protocol}, TLSClientConfig: &tls.Config{RootCAs: trust.RootCAs}}
		ws, _, err := d.Dial(url, http.Header{"Origin": {"http://elsewhere"}})
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		defer ws.Close()
		var got []byte
		for {
			_, m, err := ws.ReadMessage()
			if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v after %q", protocol, err, got)
			}
			piece, err := decode(string(m))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, piece...)
		}
		if string(got) != "one\ntwo\n" {
			t.Errorf("%s: %q", protocol, got)
		}
		_, answer, err := d.Dial(url+"?previous=true", nil)
		if err == nil || answer == nil || answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: an error before the first byte is answered with %v %v, want 400", protocol, answer, err)
		}
	}
}
