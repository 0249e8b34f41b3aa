package main

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeRedis answers the commands that the guestbook sends, and drops connections when told to.
type fakeRedis struct {
	mu    sync.Mutex
	list  []string
	conns []net.Conn
}

func startRedis(t *testing.T) (*fakeRedis, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRedis{}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			serving.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.drop()
		serving.Wait()
	})
	return f, l.Addr().String()
}

func (f *fakeRedis) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *fakeRedis) serve(c net.Conn) {
	r, in := bufio.NewReader(c), false
	for {
		request, err := readReply(r)
		if err != nil {
			return
		}
		io.WriteString(c, f.answer(request.list, &in))
	}
}

func (f *fakeRedis) answer(args []string, in *bool) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case args[0] == "AUTH" && args[1] == "secret":
		*in = true
		return "+OK\r\n"
	case !*in:
		return "-NOAUTH Authentication required.\r\n"
	case args[0] == "PING":
		return "+PONG\r\n"
	case args[0] == "LPUSH":
		f.list = append([]string{args[2]}, f.list...)
		return fmt.Sprintf(":%d\r\n", len(f.list))
	case args[0] == "LTRIM":
		return "+OK\r\n"
	case args[0] == "LRANGE":
		last, _ := strconv.Atoi(args[3])
		part := f.list[:min(len(f.list), last+1)]
		out := fmt.Sprintf("*%d\r\n", len(part))
		for _, s := range part {
			out += fmt.Sprintf("$%d\r\n%s\r\n", len(s), s)
		}
		return out
	}
	return "-ERR unknown command\r\n"
}

func newBook(address, password string) *book {
	return &book{
		title: "Test", pod: "web-1", node: "node-1", version: "v1", log: slog.New(slog.DiscardHandler),
		redis: newRedis(address, password), now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
	}
}

func ask(b *book, method, path, form string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	b.handler().ServeHTTP(w, r)
	return w
}

func TestGuestbook(t *testing.T) {
	f, address := startRedis(t)
	b := newBook(address, "secret")
	if w := ask(b, "GET", "/readyz", ""); w.Code != http.StatusOK {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
	if w := ask(b, "GET", "/", ""); !strings.Contains(w.Body.String(), "Nobody has signed yet") {
		t.Errorf("an empty page: %d %s", w.Code, w.Body)
	}
	form := url.Values{"name": {"Ada <b>"}, "message": {"hello & goodbye"}}
	if w := ask(b, "POST", "/", form.Encode()); w.Code != http.StatusSeeOther {
		t.Fatalf("signing: %d %s", w.Code, w.Body)
	}
	f.drop() // a connection that breaks while idle is not noticed by users
	w := ask(b, "GET", "/", "")
	for _, want := range []string{"Ada &lt;b&gt;", "hello &amp; goodbye", "just now via web-1", "<b>v1</b>", "node-1"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("page lacks %q: %d %s", want, w.Code, w.Body)
		}
	}
	w = ask(b, "GET", "/api/entries", "")
	if want := `[{"name":"Ada \u003cb\u003e","message":"hello \u0026 goodbye","time":"2026-01-02T03:04:05Z","pod":"web-1"}]` + "\n"; w.Body.String() != want {
		t.Errorf("entries: %s, want %s", w.Body, want)
	}
	if w := ask(b, "GET", "/api/info", ""); w.Body.String() != `{"node":"node-1","pod":"web-1","version":"v1"}`+"\n" {
		t.Errorf("info: %s", w.Body)
	}
	for _, bad := range []url.Values{{"message": {" "}}, {"message": {strings.Repeat("x", maxMessage+1)}}, {"message": {"x"}, "name": {strings.Repeat("é", maxName+1)}}} {
		if w := ask(b, "POST", "/", bad.Encode()); w.Code != http.StatusBadRequest {
			t.Errorf("bad form %v: %d %s", bad, w.Code, w.Body)
		}
	}
	b.stopping.Store(true)
	if w := ask(b, "GET", "/readyz", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("readyz while stopping: %d", w.Code)
	}
	if w := ask(b, "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("healthz while stopping: %d", w.Code)
	}
}

func TestWithoutRedis(t *testing.T) {
	_, address := startRedis(t)
	for _, b := range []*book{newBook("127.0.0.1:1", "secret"), newBook(address, "wrong"), newBook(address, "")} {
		for _, path := range []string{"/", "/readyz", "/api/entries"} {
			if w := ask(b, "GET", path, ""); w.Code != http.StatusServiceUnavailable {
				t.Errorf("%s with %s: %d %s", path, b.redis.address, w.Code, w.Body)
			}
		}
		if w := ask(b, "GET", "/healthz", ""); w.Code != http.StatusOK {
			t.Errorf("healthz: %d; a restart does not bring Redis back", w.Code)
		}
	}
}

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "-ERR\r\n", ":1\r\n", "$2\r\nhi\r\n", "$-1\r\n", "*1\r\n$0\r\n\r\n", "*-1\r\n", "*1\r\n:1\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := readReply(bufio.NewReader(strings.NewReader(s)))
		if err != nil && (r.text != "" || r.list != nil) {
			t.Errorf("%q gave %v and the error %v", s, r, err)
		}
	})
}
