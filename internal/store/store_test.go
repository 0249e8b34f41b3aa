package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/store"
)

const prefix = "/registry/configmaps/"

// spec is a table of ConfigMaps indexed by their label "color", which may name several colors ("red.blue").
func spec() store.Spec {
	return store.Spec{
		Prefix: prefix,
		Encode: func(o store.Object) ([]byte, error) { return o.(*corev1.ConfigMap).Marshal() },
		Decode: func(b []byte) (store.Object, error) {
			m := &corev1.ConfigMap{}
			return m, m.Unmarshal(b)
		},
		Indexes: map[string]func(store.Object) []string{"color": colors},
	}
}

func configMap(name, color string, n int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"color": color}},
		Data:       map[string]string{"n": strconv.Itoa(n)},
	}
}

func count(o store.Object) int {
	n, _ := strconv.Atoi(o.(*corev1.ConfigMap).Data["n"])
	return n
}

// run runs a store over b until the test ends, or stop is called.
func run(t testing.TB, b store.Backend) (s *store.Store, stop func()) {
	t.Helper()
	s = store.New(b, slog.New(slog.NewTextHandler(io.Discard, nil)), spec())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("the store failed: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("the store was not ready in time")
	}
	return s, stop
}

func commit(t testing.TB, s *store.Store, group ...store.Mutation) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), group...)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func write(s *store.Store, o *corev1.ConfigMap, cond int64) store.Mutation {
	return store.Mutation{Table: s.Table(prefix), Key: o.Name, Object: o, If: cond}
}

// observer follows a watch and keeps what it says, until done returns true.
type observer struct {
	state  map[string]*store.Revision
	events int
}

func (o *observer) follow(t *testing.T, w *store.Watcher, until int64) {
	defer w.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	last := int64(0)
	for {
		events, err := w.Next(ctx)
		if err != nil {
			t.Errorf("watching: %v", err)
			return
		}
		for _, e := range events {
			if e.Revision.Rev < last {
				t.Errorf("revision %d after %d", e.Revision.Rev, last)
			}
			last = e.Revision.Rev
			if e.Revision.Rev >= until {
				return
			}
			o.events++
			before := o.state[e.Revision.Key]
			if e.Old != before {
				t.Errorf("%s at %d: the state before is not what was told last", e.Revision.Key, e.Revision.Rev)
			}
			if (e.Type == store.Added) != (before == nil) {
				t.Errorf("%s at %d: event type %d, known before: %v", e.Revision.Key, e.Revision.Rev, e.Type, before != nil)
			}
			if rv := e.Revision.Object.GetResourceVersion(); rv != store.FormatRevision(e.Revision.Rev) {
				t.Errorf("%s at %d carries resourceVersion %q", e.Revision.Key, e.Revision.Rev, rv)
			}
			if e.Type == store.Deleted {
				delete(o.state, e.Revision.Key)
			} else {
				o.state[e.Revision.Key] = e.Revision
			}
		}
	}
}

// TestConcurrentWriters lets writers of two stores over one backend count in a few objects, and delete them now and then. Every change that
// was confirmed must be in the history that watchers of both stores see: once, in order, each on top of the one before.
func TestConcurrentWriters(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		stores := make([]*store.Store, 2)
		observers := make([]*observer, 2)
		watchers := make([]*store.Watcher, 2)
		for i := range stores {
			stores[i], _ = run(t, b)
			observers[i] = &observer{state: map[string]*store.Revision{}}
			watchers[i], _ = stores[i].Table(prefix).WatchNow()
		}
		const writers, rounds, keys = 8, 40, 3
		var mu sync.Mutex
		confirmed := 0
		var wg sync.WaitGroup
		for i := range writers {
			s, rnd := stores[i%2], rand.New(rand.NewPCG(1, uint64(i)))
			wg.Go(func() {
				for range rounds {
					key := fmt.Sprintf("k%d", rnd.IntN(keys))
					m := store.Mutation{Table: s.Table(prefix), Key: key}
					n, uid := 0, types.UID(strconv.FormatUint(rnd.Uint64(), 36)) // what is created has one of its own
					if have, ok := s.Table(prefix).Get(key); ok {
						m.If, n, uid = have.Rev, count(have.Object), have.Object.GetUID()
					}
					if m.If == 0 || rnd.IntN(10) > 0 {
						o := configMap(key, "red", n+1)
						o.UID = uid
						m.Object = o
					}
					rev, err := s.Commit(context.Background(), m)
					have, ok := s.Table(prefix).Get(key)
					var conflict *store.ConflictError
					switch {
					case errors.As(err, &conflict):
						if ok && have.Rev == m.If {
							t.Errorf("%s: refused, and the copy does not show why", key)
						}
						continue
					case err != nil:
						t.Error(err)
						return
					case ok && have.Rev < rev, m.Object != nil && m.Object.GetResourceVersion() != store.FormatRevision(rev):
						t.Errorf("%s: written at %d, the copy shows %d", key, rev, have.Rev)
					}
					mu.Lock()
					confirmed++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		end := commit(t, stores[0], write(stores[0], configMap("end", "", 0), 0))
		for i, o := range observers {
			o.follow(t, watchers[i], end)
			if o.events != confirmed {
				t.Errorf("watcher %d saw %d changes, %d were confirmed", i, o.events, confirmed)
			}
			if err := stores[i].WaitFor(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			_, snap := stores[i].Table(prefix).WatchNow()
			n := 0
			snap.Ascend("k", "", func(r *store.Revision) bool {
				if o.state[r.Key] != r {
					t.Errorf("watcher %d knows another %s than the table", i, r.Key)
				}
				n++
				return true
			})
			if n != len(o.state) {
				t.Errorf("watcher %d knows %d objects, the table has %d", i, len(o.state), n)
			}
		}
	})
}

// TestNoLostUpdate counts in one object from many writers that try again when they are refused.
func TestNoLostUpdate(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s1, _ := run(t, b)
		s2, _ := run(t, b)
		commit(t, s1, write(s1, configMap("n", "", 0), 0))
		if err := s2.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		const writers, rounds = 6, 15
		var wg sync.WaitGroup
		tries := make([]int, writers)
		for i := range writers {
			s := []*store.Store{s1, s2}[i%2]
			wg.Go(func() {
				for done := 0; done < rounds; tries[i]++ {
					have, _ := s.Table(prefix).Get("n")
					_, err := s.Commit(context.Background(), write(s, configMap("n", "", count(have.Object)+1), have.Rev))
					if err == nil {
						done++
					} else if !errors.As(err, new(*store.ConflictError)) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if err := s1.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		have, _ := s1.Table(prefix).Get("n")
		if got := count(have.Object); got != writers*rounds {
			t.Errorf("counted to %d, want %d", got, writers*rounds)
		}
		for i, n := range tries {
			if n > writers*rounds { // each refusal means that somebody else got on, so nobody spins
				t.Errorf("writer %d tried %d times", i, n)
			}
		}
	})
}

// leisurely takes as long for a transaction as a disk does.
type leisurely struct{ *store.Mem }

func (l leisurely) Commit(ctx context.Context, ops []store.Op) (int64, error) {
	time.Sleep(2 * time.Millisecond)
	return l.Mem.Commit(ctx, ops)
}

func TestCommitEachIsOneTransaction(t *testing.T) {
	s, _ := run(t, leisurely{store.NewMem()})
	commit(t, s, write(s, configMap("c1", "", 0), 0))
	var groups [][]store.Mutation
	for i := range 100 {
		groups = append(groups, []store.Mutation{write(s, configMap(fmt.Sprintf("c%d", i), "", i), 0)})
	}
	before := s.Revision()
	for i, err := range s.CommitEach(t.Context(), groups) {
		if refused := errors.As(err, new(*store.ConflictError)); refused != (i == 1) {
			t.Errorf("group %d: %v", i, err)
		}
	}
	if n := s.Table(prefix).Len(); n != 100 {
		t.Errorf("%d objects", n)
	}
	// An idle writer does not wait for company: the first batches are small.
	if used := s.Revision() - before; used > 30 {
		t.Errorf("99 writes took %d transactions", used)
	}
}

// TestReservations are keys without a table, written with an object or not at all.
func TestReservations(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s, _ := run(t, b)
		reserve := func(name string) []store.Mutation {
			return []store.Mutation{write(s, configMap(name, "", 0), 0), {Key: "/registry/ranges/ports/1", Raw: []byte(name), If: 0}}
		}
		commit(t, s, reserve("a")...)
		_, err := s.Commit(t.Context(), reserve("b")...)
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) || len(conflict.Ops) != 1 || conflict.Ops[0] != 1 {
			t.Errorf("a reservation that is taken: %v", err)
		}
		if _, ok := s.Table(prefix).Get("b"); ok {
			t.Error("the object was written without its reservation")
		}
		commit(t, s, store.Mutation{Key: "/registry/ranges/ports/1", If: store.Any})
		commit(t, s, reserve("b")...)
	})
}

// TestRestart stops a store and starts another one over the same backend.
func TestRestart(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		s, stop := run(t, b)
		for i := range 5 {
			commit(t, s, write(s, configMap(fmt.Sprint("c", i), "red", i), 0))
		}
		batch := commit(t, s, write(s, configMap("x", "", 0), 0), write(s, configMap("y", "", 0), 0), store.Mutation{Table: s.Table(prefix), Key: "c0", If: store.Any})
		stop()
		if _, err := s.Commit(t.Context(), write(s, configMap("late", "", 0), 0)); !errors.Is(err, store.ErrEnded) {
			t.Errorf("a commit after the end: %v", err)
		}
		if err := s.WaitFor(t.Context(), batch+1000); !errors.Is(err, store.ErrEnded) {
			t.Errorf("waiting after the end: %v", err)
		}
		s, _ = run(t, b)
		if n := s.Table(prefix).Len(); n != 6 {
			t.Errorf("%d objects after a restart", n)
		}
		for i, r := range s.Table(prefix).Lookup("color", "red") {
			if want := fmt.Sprint("c", i+1); r.Key != want || count(r.Object) != i+1 || r.Object.GetResourceVersion() != store.FormatRevision(r.Rev) {
				t.Errorf("%s is %+v", want, r.Object)
			}
		}
		// A client may have seen a part of the last batch.
		if _, err := s.Table(prefix).WatchFrom(batch); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("resuming from the last batch before a restart: %v", err)
		}
		w, err := s.Table(prefix).WatchFrom(s.Revision())
		if err != nil {
			t.Fatal(err)
		}
		w.Stop()
	})
}

// stuck is a backend whose transactions wait for their contexts.
type stuck struct{ *store.Mem }

func (s stuck) Commit(ctx context.Context, ops []store.Op) (int64, error) {
	if len(ops) == 1 && ops[0].If == store.Any { // a load's mark
		return s.Mem.Commit(ctx, ops)
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestNobodyWaitsForAStuckBackendForEver(t *testing.T) {
	s, stop := run(t, stuck{store.NewMem()})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Commit(ctx, write(s, configMap("a", "", 0), 0)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	const n = 2000 // more than fit the queue
	outcomes := make(chan error, n)
	for i := range n {
		go func() {
			_, err := s.Commit(context.Background(), write(s, configMap(fmt.Sprint(i), "", 0), 0))
			outcomes <- err
		}()
	}
	stop()
	for range n {
		if err := <-outcomes; !errors.Is(err, store.ErrEnded) && !errors.Is(err, context.Canceled) {
			t.Fatalf("at the store's end: %v", err)
		}
	}
}
