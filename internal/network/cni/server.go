package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest bounds a request in bytes: a network configuration is a few hundred.
const maxRequest = 1 << 20

// requestTime is how long one call may take, the runtime's impatience with plugins being longer.
const requestTime = 20 * time.Second

// Server answers the knarr-cni binary on a unix socket.
type Server struct {
	Socket string
	Plugin *Plugin
	Log    *slog.Logger
}

// Listen opens the socket, in place of one that a crash left. Only root may connect.
func (s *Server) Listen() (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o700); err != nil {
		return nil, fmt.Errorf("CNI socket: %w", err)
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("CNI socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.Socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("CNI socket: %w", err)
	}
	if err := os.Chmod(s.Socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve answers requests until ctx ends and those under way are done.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("CNI socket: %w", err)
		}
		wg.Go(func() {
			defer conn.Close()
			// A call that was begun is finished: half a pod network helps nobody.
			rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
			defer cancel()
			s.serve(rctx, conn)
		})
	}
}

// serve answers the one request of a connection.
func (s *Server) serve(ctx context.Context, conn *net.UnixConn) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return
	}
	req, netns, err := receive(conn)
	if netns >= 0 {
		defer unix.Close(netns)
	}
	var out any
	if err == nil {
		out, err = s.Plugin.Handle(ctx, req, netns)
	}
	var resp Response
	if err != nil {
		s.Log.Error("CNI call failed", "command", req.Command, "sandbox", req.ContainerID, "err", err)
		resp.Failed = true
		out = asError(err, req)
	}
	if out != nil {
		resp.Output, err = json.Marshal(out)
		if err != nil {
			return
		}
	}
	data, err := json.Marshal(resp)
	if err != nil {
		return
	}
	if _, err := conn.Write(data); err != nil {
		s.Log.Warn("CNI answer was not taken", "command", req.Command, "sandbox", req.ContainerID, "err", err)
	}
}

// receive reads one request, up to the sender's end of file, and the file descriptor that may come with it. The request
// is never nil.
func receive(conn *net.UnixConn) (*Request, int, error) {
	req, netns := &Request{}, -1
	oob := make([]byte, unix.CmsgSpace(4))
	data := make([]byte, 64<<10)
	n, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return req, netns, err
	}
	data = data[:n]
	if oobn > 0 {
		if msgs, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
			if fds, err := syscall.ParseUnixRights(&msgs[0]); err == nil && len(fds) > 0 {
				netns = fds[0]
			}
		}
	}
	rest, err := io.ReadAll(io.LimitReader(conn, maxRequest))
	if err != nil {
		return req, netns, err
	}
	if err := json.Unmarshal(append(data, rest...), req); err != nil {
		return req, netns, fmt.Errorf("request of the CNI binary: %w", err)
	}
	return req, netns, nil
}

// asError returns err as the CNI specification wants it.
func asError(err error, req *Request) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: codeInternal, Msg: err.Error()}
		if errors.Is(err, context.DeadlineExceeded) {
			e.Code = codeTryAgain
		}
	}
	out := *e
	var conf config
	if json.Unmarshal(req.Config, &conf) == nil {
		out.CNIVersion = conf.CNIVersion
	}
	if out.CNIVersion == "" {
		out.CNIVersion = versions[len(versions)-1]
	}
	return &out
}
