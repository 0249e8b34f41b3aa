package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// callTime is how long one command may take, connecting included.
const callTime = 3 * time.Second

// maxReply bounds what a reply may make us read.
const maxReply = 1 << 20

// redis is a client for the few commands that the guestbook needs, over RESP 2 (redis.io, protocol specification). It
// keeps a handful of idle connections.
type redis struct {
	address, password string
	idle              chan *conn
}

type conn struct {
	net.Conn
	r *bufio.Reader
}

// reply is what Redis answered: a string (or number), or a list of strings.
type reply struct {
	text string
	list []string
}

// replyError is an error that Redis itself reported; the connection is good.
type replyError string

func (e replyError) Error() string { return "redis: " + string(e) }

func newRedis(address, password string) *redis {
	return &redis{address: address, password: password, idle: make(chan *conn, 8)}
}

// do sends one command and reads its reply. A connection that broke while it was idle is replaced once.
func (c *redis) do(ctx context.Context, args ...string) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	select {
	case k := <-c.idle:
		if r, err := c.on(ctx, k, args); err == nil || errors.As(err, new(replyError)) {
			return r, err
		}
	default:
	}
	k, err := c.connect(ctx)
	if err != nil {
		return reply{}, err
	}
	return c.on(ctx, k, args)
}

func (c *redis) connect(ctx context.Context) (*conn, error) {
	var d net.Dialer
	n, err := d.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	k := &conn{n, bufio.NewReader(n)}
	if c.password != "" {
		if _, err := k.call(ctx, []string{"AUTH", c.password}); err != nil {
			k.Close()
			return nil, err
		}
	}
	return k, nil
}

// on sends a command over k, which is kept if it still can be used, and closed if not.
func (c *redis) on(ctx context.Context, k *conn, args []string) (reply, error) {
	r, err := k.call(ctx, args)
	if err != nil && !errors.As(err, new(replyError)) {
		k.Close()
		return reply{}, err
	}
	select {
	case c.idle <- k:
	default:
		k.Close()
	}
	return r, err
}

func (k *conn) call(ctx context.Context, args []string) (reply, error) {
	deadline, _ := ctx.Deadline()
	if err := k.SetDeadline(deadline); err != nil {
		return reply{}, err
	}
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := k.Write(b); err != nil {
		return reply{}, err
	}
	return readReply(k.r)
}

func readReply(r *bufio.Reader) (reply, error) {
	line, err := readLine(r)
	if err != nil {
		return reply{}, err
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '+', ':':
		return reply{text: rest}, nil
	case '-':
		return reply{}, replyError(rest)
	case '$':
		text, err := readBulk(r, rest)
		return reply{text: text}, err
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil || n > maxReply {
			return reply{}, fmt.Errorf("redis: a list of %q", rest)
		}
		var list []string
		for range n {
			if line, err = readLine(r); err != nil {
				return reply{}, err
			}
			if line[0] != '$' {
				return reply{}, fmt.Errorf("redis: %q in a list", line)
			}
			text, err := readBulk(r, line[1:])
			if err != nil {
				return reply{}, err
			}
			list = append(list, text)
		}
		return reply{list: list}, nil
	}
	return reply{}, fmt.Errorf("redis: unexpected reply %q", line)
}

// readLine reads up to CR LF; the line has at least one byte.
func readLine(r *bufio.Reader) (string, error) {
	b, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(b) < 3 || b[len(b)-2] != '\r' {
		return "", fmt.Errorf("redis: malformed line %q", b)
	}
	return string(b[:len(b)-2]), nil
}

func readBulk(r *bufio.Reader, size string) (string, error) {
	n, err := strconv.Atoi(size)
	if err != nil || n > maxReply {
		return "", fmt.Errorf("redis: a string of size %q", size)
	}
	if n < 0 {
		return "", nil // nil
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
