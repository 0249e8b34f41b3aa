package history

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// follower lists and watches for as long as it can, at one server after the other.
type follower struct {
	*client
	record *Follower
	rev    int64 // everything up to here was told; 0: a list is needed
}

// follow is the life of a follower: until it has seen the barrier, or ctx ends.
func (f *follower) follow(ctx context.Context) {
	f.record = f.load.Recorder.follower(f.name)
	for ctx.Err() == nil && !f.arrived() {
		if f.rev == 0 {
			o := f.do(ctx, Op{Kind: List})
			if o.Outcome != Done {
				continue
			}
			f.rev = o.Rev
			f.told(Event{Server: o.Server, Type: Replaced, Rev: o.Rev, List: o})
		}
		f.moveOn(ctx, !f.connection(ctx))
	}
}

func (f *follower) told(e Event) { f.load.Recorder.told(f.record, e) }

// arrived reports whether the follower has seen everything that there will be.
func (f *follower) arrived() bool {
	until := f.load.until.Load()
	return until > 0 && f.rev >= until
}

// watchEvent is one event as it is sent; Object may be a Status.
type watchEvent struct {
	Type   string `json:"type"`
	Object struct {
		object
		status
	} `json:"object"`
}

// connection watches at one server until that ends, and reports whether it was of any use.
func (f *follower) connection(ctx context.Context) (useful bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A server that was cut off says nothing, and not that it says nothing.
	silence := time.AfterFunc(f.load.cfg.Silence, cancel)
	defer silence.Stop()
	s := f.server()
	query := url.Values{"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {strconv.FormatInt(f.rev, 10)},
		"timeoutSeconds": {strconv.Itoa(max(1, int(f.load.cfg.WatchLife.Seconds())))}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+collection(f.load.cfg.Namespace)+"?"+query.Encode(), nil)
	if err != nil {
		return false
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode == http.StatusGone {
			f.rev = 0
		}
		return resp.StatusCode == http.StatusGone
	}
	f.told(Event{Server: s.Name, Type: Connected, Rev: f.rev})
	in := json.NewDecoder(resp.Body)
	for {
		var e watchEvent
		if err := in.Decode(&e); err != nil {
			return useful
		}
		silence.Reset(f.load.cfg.Silence)
		if !f.event(s, &e) {
			return useful
		}
		if useful = true; f.arrived() {
			return true
		}
	}
}

// event takes in one event and reports whether the watch goes on.
func (f *follower) event(s Server, e *watchEvent) bool {
	types := map[string]EventType{"ADDED": Added, "MODIFIED": Modified, "DELETED": Deleted, "BOOKMARK": Bookmark}
	t, ok := types[e.Type]
	if !ok { // ERROR
		if e.Object.Code == http.StatusGone {
			f.rev = 0
		}
		return false
	}
	v := e.Object.version()
	if t != Bookmark && v.Value == "" {
		return true // not one of ours
	}
	if v.Rev > f.rev {
		f.rev = v.Rev
	}
	f.told(Event{Server: s.Name, Type: t, Key: e.Object.Metadata.Name, Value: v.Value, Rev: v.Rev})
	return true
}

// String makes followers readable in messages.
func (f *Follower) String() string { return fmt.Sprintf("%s (%d events)", f.Name, len(f.Events)) }
