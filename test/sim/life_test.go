package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// life is a world in which workloads of all kinds live as a seed says. Two servers lead by turns and meet faults; the world's own client is that
// of a third one, which never leads and meets none.
type life struct {
	*world
	rng      *rand.Rand
	servers  [2]*rival
	front    *registry.Registry // of the third one
	leading  int
	abdicate context.CancelFunc // ends the term of the server that leads
	frozen   *rival             // the server that is suspended, if one is
	stale    context.CancelFunc // ends the term of the one that was suspended while it led; nil if nobody took over
	machines [lifeMachines]machine
	seen     *sightings
	log      []string // what was done last, for a failure to show
}

// lastDeeds is how much of what was done a failure shows.
const lastDeeds = 150

func (l *life) did(format string, args ...any) {
	if *lifeTold {
		fmt.Fprintln(os.Stderr, time.Now().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
	if len(l.log) == 2*lastDeeds {
		l.log = append(l.log[:0], l.log[lastDeeds:]...)
	}
	l.log = append(l.log, time.Now().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// live runs f in a life drawn from seed, with machines that are up and a server that leads.
func live(t *testing.T, seed uint64, f func(l *life)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		mem := store.NewMem()
		l := &life{world: &world{t: t, ctx: ctx, backend: newFaulty(mem, seed)}, rng: rand.New(rand.NewPCG(seed, 0))}
		defer l.wg.Wait()
		defer cancel()
		defer func() {
			if t.Failed() {
				t.Logf("what was done last:\n%s", strings.Join(l.log, "\n"))
			}
		}()
		for i := range l.servers {
			l.servers[i] = l.rival(i, newFaulty(mem, seed+uint64(i)+1))
		}
		onlooker := l.rival(len(l.servers), l.backend)
		l.Client, l.agents, l.front = onlooker.Client, onlooker.NodeClient, onlooker.Registry
		l.lead(0)
		defer func() { l.abdicate() }()
		l.seen = l.watchEnds()
		for i := range l.machines {
			l.power(i)
		}
		f(l)
		l.thaw()
	})
}

// lead begins a term of server i.
func (l *life) lead(i int) {
	l.leading = i
	var term context.Context
	term, l.abdicate = context.WithCancel(l.ctx)
	l.servers[i].terms <- term
	l.did("server %d leads", i)
}

// handOver ends the term of the server that leads and begins one of the other, unless that is suspended.
func (l *life) handOver() {
	if l.frozen != nil {
		return
	}
	l.abdicate()
	l.lead(1 - l.leading)
}

// suspend stops the server that leads, of which half the time nobody takes note, or lets the one go on that is stopped.
func (l *life) suspend() {
	if l.frozen != nil {
		l.thaw()
		return
	}
	l.frozen = l.servers[l.leading]
	l.frozen.backend.freeze()
	l.did("server %d is suspended", l.leading)
	if l.rng.IntN(2) == 0 {
		l.stale = l.abdicate
		l.lead(1 - l.leading)
	}
}

// thaw lets a suspended server go on. If another one leads by now, it learns so some time later.
func (l *life) thaw() {
	if l.frozen == nil {
		return
	}
	l.frozen.backend.thaw()
	l.frozen = nil
	l.did("the suspended server goes on")
	if l.stale != nil {
		l.pass(time.Duration(l.rng.IntN(2000)) * time.Millisecond)
		l.stale()
		l.stale = nil
		synctest.Wait()
	}
}

// fail lets the servers' store fail for a while, or work again.
func (l *life) fail() {
	var r rates
	if l.rng.IntN(2) == 0 {
		r = rates{refuse: 0.05, unknown: 0.05, lose: 0.02, latency: time.Duration(l.rng.IntN(200)) * time.Millisecond}
	}
	for _, s := range l.servers {
		s.backend.Backend.(*faulty).fail(r)
	}
	l.did("the store fails: %+v", r)
}

// end deletes a pod, evicts it, or makes it fail as one that its node evicts.
func (l *life) end() {
	all, err := client.List[*corev1.Pod](l.ctx, l.Client, client.ListOptions{Namespace: "default"})
	if err != nil || len(all) == 0 {
		return
	}
	p := all[l.rng.IntN(len(all))]
	how := l.rng.IntN(3)
	switch {
	case how == 0:
		err = l.front.Evict(l.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}}, metav1.CreateOptions{})
	case how == 1 && !strings.HasPrefix(p.Name, "state-"): // its containers might go on beside those of the next one
		_, err = client.Mutate(l.ctx, l.Client, api.KeyOf(p), "status", func(p *corev1.Pod) bool {
			if ended(p) {
				return false
			}
			p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted"
			return true
		})
	default:
		err = client.Delete[*corev1.Pod](l.ctx, l.Client, api.KeyOf(p), metav1.DeleteOptions{})
	}
	l.did("pod %s ends (%d): %v", p.Name, how, err)
}

// turn sets the clock of what CronJobs remember: to them it was later, or earlier, than it is.
func (l *life) turn() {
	by := time.Duration(l.rng.IntN(7200)-3600) * time.Second
	for _, name := range []string{"cron-a", "cron-b"} {
		_, err := client.Mutate(l.ctx, l.Client, api.Key{Namespace: "default", Name: name}, "status", func(c *batchv1.CronJob) bool {
			if c.Status.LastScheduleTime == nil {
				return false
			}
			c.Status.LastScheduleTime = &metav1.Time{Time: c.Status.LastScheduleTime.Add(by)}
			return true
		})
		l.did("the clock of %s is turned by %v: %v", name, by, err)
	}
}

// step does one thing, and lets some time pass, mostly little.
func (l *life) step() {
	s := subjects[l.rng.IntN(len(subjects))]
	switch n := l.rng.IntN(100); {
	case n < 25:
		l.did("create %s: %v", s.name, s.create(l))
	case n < 65:
		l.did("edit %s: %v", s.name, s.edit(l))
	case n < 73:
		l.did("delete %s: %v", s.name, s.remove(l))
	case n < 87:
		l.end()
	case n < 91:
		l.machine()
	case n < 93:
		l.handOver()
	case n < 95:
		l.suspend()
	case n < 98:
		l.fail()
	case n < 99:
		l.turn()
	default:
		l.pass(time.Duration(l.rng.IntN(600)) * time.Second)
	}
	switch l.rng.IntN(10) {
	case 0, 1: // the next before anything came of this one
		return
	case 2, 3, 4: // the next at the same time
	case 5, 6, 7:
		l.pass(time.Duration(l.rng.IntN(300)) * time.Millisecond)
	case 8:
		l.pass(time.Duration(l.rng.IntN(3000)) * time.Millisecond)
	case 9:
		l.pass(time.Duration(l.rng.IntN(20)) * time.Second)
	}
	synctest.Wait()
	l.check()
}

// settle undoes what stands in the way of what is declared: faults, machines that are off, a quota that is too small, what is suspended.
func (l *life) settle() {
	l.thaw()
	for _, s := range l.servers {
		s.backend.Backend.(*faulty).fail(rates{})
	}
	for i := range l.machines {
		l.power(i)
	}
	l.pass(time.Minute) // what is being deleted goes; whom it leaves behind is taken over by what is created now
	for _, s := range subjects {
		l.did("create %s: %v", s.name, s.create(l))
		l.did("settle %s: %v", s.name, s.settle(l))
	}
}

// TestLivesEndAsDeclared draws lives from seeds: whatever was created, changed, deleted, lost and led by whom, in the end there is what is
// declared and nothing else, and on the way nothing was there twice or counted twice.
func TestLivesEndAsDeclared(t *testing.T) {
	for seed := range *lives {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			live(t, seed, func(l *life) {
				for range l.length(seed) {
					l.step()
				}
				l.settle()
				l.until("the declared state", 40*time.Minute, l.declared)
				l.pass(3 * time.Minute)
				if ok, seen := l.declared(); !ok {
					t.Errorf("three minutes later: %v", seen)
				}
			})
		})
	}
}
