package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	key        = "guestbook:entries"
	kept       = 1000 // entries in Redis
	shown      = 50   // entries on the page
	maxName    = 40   // characters
	maxMessage = 280
)

// entry is one line of the guestbook, as Redis and /api/entries have it.
type entry struct {
	Name    string    `json:"name"`
	Message string    `json:"message"`
	Time    time.Time `json:"time"`
	Pod     string    `json:"pod"` // that took it
}

// book is the front end.
type book struct {
	title, pod, node, version string
	redis                     *redis
	log                       *slog.Logger
	now                       func() time.Time
	stopping                  atomic.Bool
}

func (b *book) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", b.page)
	mux.HandleFunc("POST /{$}", b.sign)
	mux.HandleFunc("GET /api/entries", b.list)
	mux.HandleFunc("GET /api/info", b.info)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", b.ready)
	return mux
}

// ready is for the readiness probe: without Redis there is nothing to serve.
func (b *book) ready(w http.ResponseWriter, r *http.Request) {
	if b.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	if _, err := b.redis.do(r.Context(), "PING"); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (b *book) entries(ctx context.Context) ([]entry, error) {
	reply, err := b.redis.do(ctx, "LRANGE", key, "0", fmt.Sprint(shown-1))
	if err != nil {
		return nil, err
	}
	entries := []entry{}
	for _, line := range reply.list {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("an entry in Redis is not one of ours: %w", err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// sign takes an entry from the form and goes back to the page.
func (b *book) sign(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	e := entry{
		Name: strings.TrimSpace(r.FormValue("name")), Message: strings.TrimSpace(r.FormValue("message")),
		Time: b.now().UTC(), Pod: b.pod,
	}
	if e.Name == "" {
		e.Name = "Anonymous"
	}
	switch {
	case e.Message == "":
		http.Error(w, "message: it is empty", http.StatusBadRequest)
		return
	case utf8.RuneCountInString(e.Message) > maxMessage:
		http.Error(w, fmt.Sprintf("message: at most %d characters", maxMessage), http.StatusBadRequest)
		return
	case utf8.RuneCountInString(e.Name) > maxName:
		http.Error(w, fmt.Sprintf("name: at most %d characters", maxName), http.StatusBadRequest)
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = b.redis.do(r.Context(), "LPUSH", key, string(line))
	}
	if err == nil {
		_, err = b.redis.do(r.Context(), "LTRIM", key, "0", fmt.Sprint(kept-1))
	}
	if err != nil {
		b.fail(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (b *book) list(w http.ResponseWriter, r *http.Request) {
	entries, err := b.entries(r.Context())
	if err != nil {
		b.fail(w, err)
		return
	}
	writeJSON(w, entries)
}

// info says who answers; a loop over it shows load balancing and roll-outs.
func (b *book) info(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]string{"version": b.version, "pod": b.pod, "node": b.node})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func (b *book) fail(w http.ResponseWriter, err error) {
	b.log.Error("Redis does not serve", "err", err)
	http.Error(w, "the guestbook's database does not answer: "+err.Error(), http.StatusServiceUnavailable)
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// line is an entry as the page shows it.
type line struct {
	entry
	Initial, Ago string
	Hue          uint32
}

func (b *book) page(w http.ResponseWriter, r *http.Request) {
	entries, err := b.entries(r.Context())
	if err != nil {
		b.fail(w, err)
		return
	}
	lines := make([]line, len(entries))
	for i, e := range entries {
		h := fnv.New32a()
		h.Write([]byte(e.Name))
		first, _ := utf8.DecodeRuneInString(e.Name)
		lines[i] = line{e, strings.ToUpper(string(first)), ago(b.now().Sub(e.Time)), h.Sum32() % 360}
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	err = pageTemplate.Execute(w, map[string]any{
		"Title": b.title, "Version": b.version, "Pod": b.pod, "Node": b.node, "Lines": lines,
		"MaxName": maxName, "MaxMessage": maxMessage, "Second": b.version != "v1" && b.version != "dev",
	})
	if err != nil {
		b.log.Warn("a page was not written to its end", "err", err)
	}
}

// ago says how long something is past.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d d ago", int(d.Hours()/24))
	}
}
