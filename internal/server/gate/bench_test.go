package gate

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/knarr-io/knarr/internal/server/call"
)

// nowhere is an answer that nobody reads.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// BenchmarkGate is what every request pays before it is answered, where nobody has to wait.
func BenchmarkGate(b *testing.B) {
	g := open(func(*call.Call) error { return nil })
	one := func(w http.ResponseWriter) {
		g.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/namespaces/a/configmaps/b", nil))
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			one(nowhere{http.Header{}})
		}
	})
	b.Run("together", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				one(nowhere{http.Header{}})
			}
		})
	})
}
