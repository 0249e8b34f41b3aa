// Package agentlink is the one connection that the agent of a machine that joined keeps with each server, and over which the
// server reaches the machine's containers: agents only dial out, so that machines behind NAT work.
//
// What flows through it: the agent upgrades an HTTP/1.1 request for [Path] to protocol [Protocol]; from then on it is the HTTP/2
// server of that connection, and the API server its client. The API server asks for logs, and for exec, attach and port-forward,
// whose answers become a stream of bytes to the runtime's streaming server on the agent's machine. What must stay true: the
// name of the node is that of the agent's client certificate; an agent reaches nothing on the server over this connection; the
// server reaches nothing on the agent's machine but its pods. Tests: TestEndpoints, TestStreams;
// TestJoinedMachineMayTouchOnlyItsOwn (internal/controlplane).
package agentlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

const (
	// Path is where the API server takes agents' connections.
	Path = "/knarr/agent"
	// Protocol is what a connection is upgraded to.
	Protocol = "knarr-agent/1"
	// pathHeader tells the server the request target of a stream.
	pathHeader = "Knarr-Stream-Path"
)

// A connection on which nothing comes for idle is asked for a sign of life, and given up without one within patience.
const (
	idle     = 15 * time.Second
	patience = 10 * time.Second
)

// Streams is the way to the containers of one node, as the API server sees it; node.Agent is one.
type Streams interface {
	Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, w io.Writer) error
	ExecURL(ctx context.Context, key api.Key, opts *corev1.PodExecOptions) (*url.URL, error)
	AttachURL(ctx context.Context, key api.Key, opts *corev1.PodAttachOptions) (*url.URL, error)
	PortForwardURL(ctx context.Context, key api.Key, opts *corev1.PodPortForwardOptions) (*url.URL, error)
}

// writeError answers with err as an API status.
func writeError(w http.ResponseWriter, err error) {
	var st apierrors.APIStatus
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: err.Error()}
	if errors.As(err, &st) {
		status = st.Status()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(max(status.Code, http.StatusBadRequest)))
	_ = json.NewEncoder(w).Encode(status) // the server that asked may be gone
}

// readError is the inverse.
func readError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	var status metav1.Status
	if json.Unmarshal(b, &status) != nil || status.Message == "" {
		return fmt.Errorf("the agent answered %s: %s", resp.Status, b)
	}
	return &apierrors.StatusError{ErrStatus: status}
}

// streamConn is a stream of an HTTP/2 connection as a net.Conn. Deadlines do nothing: the stream ends with its request.
type streamConn struct {
	io.Reader
	io.Writer
	close func() error
}

func (c *streamConn) Close() error                     { return c.close() }
func (c *streamConn) LocalAddr() net.Addr              { return linkAddr{} }
func (c *streamConn) RemoteAddr() net.Addr             { return linkAddr{} }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

type linkAddr struct{}

func (linkAddr) Network() string { return "agentlink" }
func (linkAddr) String() string  { return "agentlink" }
