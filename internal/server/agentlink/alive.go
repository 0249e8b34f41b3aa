package agentlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel asks the other end for a sign of life (RFC 9293 section 3.8.4) and gives the connection up when for aliveTimeout nothing has
// come or nothing of what was sent has been acknowledged (TCP_USER_TIMEOUT, RFC 5482). It costs no process a wake-up, and a process that
// is merely slow is not taken for dead.
const (
	aliveIdle     = time.Second
	aliveInterval = time.Second
	aliveTimeout  = 3 * time.Second
)

var aliveConfig = net.KeepAliveConfig{Enable: true, Idle: aliveIdle, Interval: aliveInterval, Count: int(aliveTimeout / aliveInterval)}

// Dialer connects with servers, and notices within seconds that one has gone without a word.
func Dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: aliveTimeout, KeepAliveConfig: aliveConfig,
		ControlContext: func(_ context.Context, _, _ string, c syscall.RawConn) error { return setUserTimeout(c) },
	}
}

// keepAlive makes an accepted connection notice as quickly that the other end has gone. A connection that is not TCP, as in tests,
// needs no such thing.
func keepAlive(conn net.Conn) error {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = inner.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := tcp.SetKeepAliveConfig(aliveConfig); err != nil {
		return err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return setUserTimeout(raw)
}

func setUserTimeout(c syscall.RawConn) error {
	var failed error
	if err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(aliveTimeout/time.Millisecond))
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("setting TCP_USER_TIMEOUT: %w", failed)
	}
	return nil
}

// silent reports whether a connection ended because nothing came any more, rather than by being closed.
func silent(err error) bool {
	for _, e := range []syscall.Errno{unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENETDOWN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
