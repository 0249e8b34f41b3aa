package stream

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// relayed returns a client's connection and the backend's, joined, and what join returns.
func relayed(t *testing.T) (client, backend *net.TCPConn, ended <-chan error) {
	t.Helper()
	client, a := pair(t)
	backend, b := pair(t)
	result := make(chan error, 1)
	go func() { result <- join(context.Background(), a, a, b, b) }()
	return client, backend, result
}

// pair returns the two ends of a TCP connection.
func pair(t *testing.T) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// A backend that has ended is heard to its last byte by a client that goes on writing and reads late.
func TestTheLastBytesOfABackendArrive(t *testing.T) {
	said := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 20 {
		client, backend, ended := relayed(t)
		stop := make(chan struct{})
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := client.Write([]byte("still there")); err != nil {
						return
					}
				}
			}
		}()
		go func() {
			_, _ = backend.Write(said)
			_ = backend.Close() // with what the client wrote unread
		}()
		time.Sleep(5 * time.Millisecond) // the client reads late
		got, err := io.ReadAll(client)
		close(stop)
		<-wrote
		client.Close()
		// The kernel may drop what the backend itself had not sent yet, as it closed with bytes unread: nothing of the rest is lost.
		if err != nil || len(got) == 0 || !bytes.Equal(got, said[:len(got)]) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(said), err)
		}
		<-ended
	}
}

func TestABackendEndsWithItsClient(t *testing.T) {
	client, backend, ended := relayed(t)
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if got, err := io.ReadAll(backend); err != nil || string(got) != "hello" {
		t.Errorf("the backend has %q, %v", got, err)
	}
	backend.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAClientThatStaysIsLeft(t *testing.T) {
	client, backend, ended := relayed(t)
	began := time.Now()
	if _, err := backend.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	backend.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
		t.Errorf("the client has %q, %v", got, err)
	}
	if err := <-ended; err != nil || time.Since(began) > 4*lingering {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
