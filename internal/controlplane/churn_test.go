package controlplane_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/store"
)

var (
	churns    = flag.Int("churns", 1, "how many worlds TestWatchersSeeWhatWasWritten plays")
	churnSeed = flag.Uint64("churn-seed", 1, "the seed of the first of them")
)

// Clients write and watch custom resources and ConfigMaps while definitions come, go and change their schemas and the version that is stored, the
// server is restarted and the store's history is compacted. What each watcher was told is what was written: all of it, in order, from each of its
// lists on until it had to list again.
func TestWatchersSeeWhatWasWritten(t *testing.T) {
	for seed := *churnSeed; seed < *churnSeed+uint64(*churns); seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { playChurn(t, seed) })
	}
}

// churn is a control plane to which everything happens.
type churn struct {
	t       *testing.T
	random  *rand.Rand
	backend *recorder

	mu    sync.Mutex
	plane *plain
	lives int // counts the server's restarts

	kinds []*churnKind
}

// churnKind is what a definition of the test defines: versions v1 and v2 that differ in nothing but their names.
type churnKind struct {
	plural string
	stored string // version
	extra  bool   // the schema has one more field
}

func (k *churnKind) name() string { return k.plural + ".churn.example.com" }

func (k *churnKind) path(version string) string {
	return "/apis/churn.example.com/" + version + "/" + k.plural
}

// manifest returns the definition, of a resourceVersion if it is to replace the one that is there.
func (k *churnKind) manifest(resourceVersion string) string {
	field := ""
	if k.extra {
		field = ", extra: {type: string, default: more}"
	}
	schema := "{openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {n: {type: integer}" + field + "}}}}}"
	version := func(name string) string {
		return fmt.Sprintf("{name: %s, served: true, storage: %v, schema: %s}", name, k.stored == name, schema)
	}
	return fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %s, resourceVersion: %q},
spec: {group: churn.example.com, scope: Cluster, names: {plural: %s, kind: %s}, versions: [%s, %s]}}`,
		k.name(), resourceVersion, k.plural, strings.ToUpper(k.plural[:1])+k.plural[1:], version("v1"), version("v2"))
}

func playChurn(t *testing.T, seed uint64) {
	c := &churn{t: t, random: rand.New(rand.NewPCG(seed, 0)), backend: &recorder{Mem: store.NewMem()}}
	c.plane = openPlain(t, c.backend)
	for _, plural := range []string{"boats", "ships"} {
		k := &churnKind{plural: plural, stored: "v1"}
		c.kinds = append(c.kinds, k)
		c.plane.define(k.manifest(""))
	}
	paths := []string{c.kinds[0].path("v1"), c.kinds[0].path("v2"), c.kinds[1].path("v2"), "/api/v1/namespaces/default/configmaps"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers, watchers sync.WaitGroup
	writing, stop := context.WithCancel(ctx)
	for i := range 6 {
		random := rand.New(rand.NewPCG(seed, uint64(i+1)))
		writers.Go(func() { c.write(writing, random, paths) })
	}
	var all []*follower
	for i := range 8 {
		f := &follower{churn: c, path: paths[i%len(paths)]}
		all = append(all, f)
		watchers.Go(func() { f.run(ctx) })
	}
	for range 30 {
		c.step()
	}
	stop()
	writers.Wait()
	for i, path := range paths { // what everybody must have seen at last
		c.mustWrite("POST", path, objectAt(path, fmt.Sprintf("last-%d", i), 1_000_000+i))
	}
	for _, f := range all {
		f.await("last-" + fmt.Sprint(indexOf(paths, f.path)))
	}
	cancel()
	watchers.Wait()
	for i, f := range all {
		if err := f.check(c.backend.history(f.prefix())); err != nil {
			t.Errorf("seed %d: watcher %d of %s: %v", seed, i, f.path, err)
		}
	}
}

func indexOf(list []string, s string) int {
	for i, v := range list {
		if v == s {
			return i
		}
	}
	return -1
}

// step lets one thing happen to the control plane, and then nothing for a moment.
func (c *churn) step() {
	k := c.kinds[c.random.IntN(len(c.kinds))]
	switch n := c.random.IntN(20); {
	case n < 5:
		k.stored = map[string]string{"v1": "v2", "v2": "v1"}[k.stored]
		c.redefine(k)
	case n < 10:
		k.extra = !k.extra
		c.redefine(k)
	case n < 13:
		c.plane.must(200, "", "DELETE", definitionsPath+"/"+k.name(), "")
		c.plane.await(404, "", definitionsPath+"/"+k.name())
		c.plane.define(k.manifest(""))
	case n < 15:
		c.restart()
	case n < 18:
		rev, _ := c.backend.Revision(c.t.Context())
		c.backend.Compact(rev)
	}
	time.Sleep(time.Duration(c.random.IntN(60)) * time.Millisecond)
}

// redefine replaces a definition by what k says now.
func (c *churn) redefine(k *churnKind) {
	path := definitionsPath + "/" + k.name()
	for {
		_, out := c.plane.do("GET", path, "")
		code, answer := c.plane.do("PUT", path, k.manifest(field(out, "metadata", "resourceVersion")))
		if code == 200 {
			return
		}
		if code != 409 {
			c.t.Fatalf("changing %s: %d %s", k.name(), code, answer)
		}
	}
}

func (c *churn) restart() {
	c.plane.end()
	next := openPlain(c.t, c.backend)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plane = next
	c.lives++
}

// url returns where the server is at present.
func (c *churn) url() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plane.url
}

// mustWrite writes as soon as what it writes to is served.
func (c *churn) mustWrite(method, path, body string) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		code, out := c.plane.do(method, path, body)
		if code < 300 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s %s: %d %s", method, path, code, out)
		}
	}
}
