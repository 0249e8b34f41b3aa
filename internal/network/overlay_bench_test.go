package network

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/knarr-io/knarr/internal/network/overlay"
)

// BenchmarkBetweenMachines sends TCP from a pod of one machine to a pod of another, both on this one: plain routes and VXLAN.
func BenchmarkBetweenMachines(b *testing.B) {
	for _, mode := range []overlay.Mode{overlay.Routes, overlay.VXLAN} {
		b.Run(string(mode), func(b *testing.B) {
			m := newMachines(b, 2, mode, false)
			m.join(m.nodes[1])
			from, to := m.nodes[0].pod("from"), m.nodes[1].pod("to")
			m.nodes[0].eventually("pod to pod", func() bool { _, err := ask(from.ns, to.addr.String()+":8080"); return err == nil })
			var l net.Listener
			to.ns.Must("listener", func() (err error) { l, err = net.Listen("tcp4", ":9000"); return err })
			defer l.Close()
			received := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, err = io.Copy(io.Discard, onlyReader{c})
				}
				received <- err
			}()
			var c net.Conn
			from.ns.Must("connection", func() (err error) { c, err = net.Dial("tcp4", to.addr.String()+":9000"); return err })
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(buf)))
			b.ResetTimer()
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
			if err := errors.Join(c.Close(), <-received); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// onlyReader hides splice, so that the receiver reads as programs do.
type onlyReader struct{ io.Reader }
