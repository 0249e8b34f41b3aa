package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// written is one change as the store's backend took it.
type written struct {
	rev int64
	key string // below the prefix of the resource
	n   string // what the object says; of the object that was there, where it is deleted
	typ string // as a watch tells it
}

// recorder is a backend that keeps what it was given.
type recorder struct {
	*store.Mem
	mu   sync.Mutex
	made []struct {
		rev int64
		ops []store.Op
	}
}

func (r *recorder) Commit(ctx context.Context, ops []store.Op) (int64, error) {
	rev, err := r.Mem.Commit(ctx, ops)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.made = append(r.made, struct {
			rev int64
			ops []store.Op
		}{rev, slices.Clone(ops)})
	}
	return rev, err
}

// history returns all changes below a prefix, in order.
func (r *recorder) history(prefix string) []written {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.made, func(a, b struct {
		rev int64
		ops []store.Op
	}) int {
		return int(a.rev - b.rev)
	})
	present := map[string]written{}
	var out []written
	for _, m := range r.made {
		for _, op := range m.ops {
			key, ok := strings.CutPrefix(op.Key, prefix)
			if !ok || op.Check {
				continue
			}
			was, existed := present[key]
			switch w := (written{rev: m.rev, key: key, typ: "MODIFIED"}); {
			case op.Value == nil && !existed:
			case op.Value == nil:
				w.typ, w.n = "DELETED", was.n
				delete(present, key)
				out = append(out, w)
			default:
				if w.n = numberOf(op.Value); !existed {
					w.typ = "ADDED"
				}
				present[key] = w
				out = append(out, w)
			}
		}
	}
	return out
}

// numberOf returns what a stored object says.
func numberOf(value []byte) string {
	if value[0] == '{' {
		return field(string(value), "spec", "n")
	}
	obj, err := api.ConfigMaps.Decode(value)
	if err != nil {
		return err.Error()
	}
	return obj.(*corev1.ConfigMap).Data["n"]
}

// field returns a field of a JSON object as text; empty where there is none.
func field(text string, path ...string) string {
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return ""
	}
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// objectAt returns an object for a path that says n.
func objectAt(path, name string, n int) string {
	parts := strings.Split(path, "/")
	if strings.HasSuffix(path, "/configmaps") {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"n":"%d"}}`, name, n)
	}
	plural := parts[len(parts)-1]
	return fmt.Sprintf(`{"apiVersion":"churn.example.com/%s","kind":%q,"metadata":{"name":%q},"spec":{"n":%d}}`,
		parts[3], strings.ToUpper(plural[:1])+plural[1:], name, n)
}

// write creates, changes and deletes objects of a few names until ctx ends. What is refused is not tried again.
func (c *churn) write(ctx context.Context, random *rand.Rand, paths []string) {
	for ctx.Err() == nil {
		path := paths[random.IntN(len(paths))]
		name := fmt.Sprintf("o-%d", random.IntN(6))
		n := random.IntN(1_000_000)
		method, at, body := "POST", path, objectAt(path, name, n)
		switch random.IntN(5) {
		case 0, 1:
		case 2, 3:
			method, at, body = "PATCH", path+"/"+name, fmt.Sprintf(`{"spec":{"n":%d}}`, n)
			if strings.HasSuffix(path, "/configmaps") {
				body = fmt.Sprintf(`{"data":{"n":"%d"}}`, n)
			}
		default:
			method, at, body = "DELETE", path+"/"+name, ""
		}
		code, out := c.request(ctx, method, at, body)
		switch code {
		case 0, 200, 201, 202, 404, 409, 429, 500, 503, 504:
		case 403, 405: // the definition is being deleted
			if !strings.Contains(out, "terminating") && !strings.Contains(out, "not allowed") {
				c.t.Errorf("%s %s: %d %s", method, at, code, out)
			}
		default:
			c.t.Errorf("%s %s: %d %s", method, at, code, out)
		}
		time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond)
	}
}

// request sends a request; the code is 0 where nobody answers.
func (c *churn) request(ctx context.Context, method, path, body string) (int, string) {
	req, err := http.NewRequestWithContext(ctx, method, c.url()+path, strings.NewReader(body))
	if err != nil {
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(out)
}
