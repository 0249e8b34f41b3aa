package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// seen is an object as a watcher was told it.
type seen struct {
	Metadata   struct{ Name, ResourceVersion string }
	APIVersion string
	Spec       struct{ N json.Number }
	Data       struct{ N string }
}

func (s *seen) rev() int64 {
	rev, _ := strconv.ParseInt(s.Metadata.ResourceVersion, 10, 64)
	return rev
}

func (s *seen) number() string { return s.Spec.N.String() + s.Data.N }

// round is what a watcher was told from one list to the next.
type round struct {
	rev    int64              // of the list
	listed map[string]written // by name
	told   []written
}

// follower lists and watches as clients do: it resumes from the last thing that it saw, and lists again where that is refused.
type follower struct {
	churn *churn
	path  string

	mu     sync.Mutex
	rounds []*round
}

// prefix returns where the backend keeps what the follower watches.
func (f *follower) prefix() string {
	if strings.HasSuffix(f.path, "/configmaps") {
		return "/registry/configmaps/default/"
	}
	return "/registry/churn.example.com/" + f.path[strings.LastIndex(f.path, "/")+1:] + "/"
}

func (f *follower) run(ctx context.Context) {
	from := ""
	for ctx.Err() == nil {
		if from == "" {
			from = f.list(ctx)
		}
		if from != "" {
			from = f.watch(ctx, from)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// list begins a round and returns its resourceVersion; empty where there is nothing to list.
func (f *follower) list(ctx context.Context) string {
	code, out := f.churn.request(ctx, "GET", f.path, "")
	if code != 200 {
		return ""
	}
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []seen
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		f.churn.t.Errorf("a list of %s: %v", f.path, err)
		return ""
	}
	r := &round{listed: map[string]written{}}
	r.rev, _ = strconv.ParseInt(list.Metadata.ResourceVersion, 10, 64)
	for _, s := range list.Items {
		r.listed[s.Metadata.Name] = written{rev: s.rev(), key: s.Metadata.Name, n: s.number()}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rounds = append(f.rounds, r)
	return list.Metadata.ResourceVersion
}

// watch follows from a resourceVersion until the watch ends, and returns the one to go on from; empty where there is none.
func (f *follower) watch(ctx context.Context, from string) string {
	req, err := http.NewRequestWithContext(ctx, "GET", f.churn.url()+f.path+"?watch=1&resourceVersion="+from, nil)
	if err != nil {
		return ""
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return from // nobody is there
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == 404 || resp.StatusCode == 410:
		return ""
	case resp.StatusCode != 200:
		return from
	}
	version := strings.TrimPrefix(f.path[:strings.LastIndex(f.path, "/")], "/apis/")
	for d := json.NewDecoder(resp.Body); ; {
		var e struct {
			Type   string
			Object seen
		}
		if d.Decode(&e) != nil {
			return from
		}
		if e.Type == "ERROR" {
			return ""
		}
		if strings.HasPrefix(f.path, "/apis/") && e.Object.APIVersion != version {
			f.churn.t.Errorf("a watch of %s was told an object of %s", version, e.Object.APIVersion)
		}
		from = e.Object.Metadata.ResourceVersion
		if e.Type == "BOOKMARK" {
			continue
		}
		f.mu.Lock()
		r := f.rounds[len(f.rounds)-1]
		r.told = append(r.told, written{rev: e.Object.rev(), key: e.Object.Metadata.Name, n: e.Object.number(), typ: e.Type})
		f.mu.Unlock()
	}
}

// await waits until the follower knows an object of a name.
func (f *follower) await(name string) {
	f.churn.t.Helper()
	for deadline := time.Now().Add(time.Minute); !f.knows(name); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.churn.t.Fatalf("a watcher of %s never saw %s", f.path, name)
		}
	}
}

func (f *follower) knows(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rounds) == 0 {
		return false
	}
	r := f.rounds[len(f.rounds)-1]
	if _, ok := r.listed[name]; ok {
		return true
	}
	for _, w := range r.told {
		if w.key == name {
			return true
		}
	}
	return false
}

// check returns where what the follower was told differs from what was written.
func (f *follower) check(history []written) error {
	for i, r := range f.rounds {
		present := map[string]written{}
		var after []written
		for _, w := range history {
			switch {
			case w.rev > r.rev:
				after = append(after, w)
			case w.typ == "DELETED":
				delete(present, w.key)
			default:
				present[w.key] = written{rev: w.rev, key: w.key, n: w.n}
			}
		}
		if fmt.Sprint(present) != fmt.Sprint(r.listed) {
			return fmt.Errorf("list %d at revision %d holds %v, written was %v", i, r.rev, r.listed, present)
		}
		if err := r.check(after); err != nil {
			return fmt.Errorf("after list %d at revision %d: %w", i, r.rev, err)
		}
	}
	return nil
}

// check compares what a round was told with what was written after its list. Who resumes from the revision of a batch is told all of it again.
func (r *round) check(after []written) error {
	at := 0
	known := map[string]bool{}
	for _, w := range r.told {
		id := fmt.Sprint(w.rev, w.key)
		if known[id] {
			continue
		}
		known[id] = true
		if at == len(after) {
			return fmt.Errorf("told of %v, which was not written", w)
		}
		// Within a batch the order is the store's own.
		found := -1
		for j := at; j < len(after) && after[j].rev == after[at].rev; j++ {
			if after[j] == w {
				found = j
			}
		}
		if found < 0 {
			return fmt.Errorf("told of %v where %v was written next", w, after[at])
		}
		after[at], after[found] = after[found], after[at]
		at++
	}
	return nil
}
