package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/api"
)

// BenchmarkMemoryOfLists is what the process needs while ten clients list 20,000 pods at once in forms that are not kept, and how long
// after it is within a fifth of what it needed before: go test -run NONE -bench MemoryOfLists -benchtime 1x ./internal/server
func BenchmarkMemoryOfLists(b *testing.B) {
	const pods, clients = 20_000, 10
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // as the server runs
	f := start(b)
	var objs []api.Object
	for i := range pods {
		objs = append(objs, testPod(i))
	}
	for _, r := range f.client.CreateMany(context.Background(), objs) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	clear(objs)
	for _, accept := range []string{
		"application/yaml", "application/cbor", "application/json" + asTable, "application/yaml" + asTable, "application/cbor" + asTable,
		"application/json" + asMeta, "application/cbor" + asMeta, "application/vnd.kubernetes.protobuf" + asMeta,
	} {
		name, _, _ := strings.Cut(strings.ReplaceAll(strings.TrimPrefix(accept, "application/"), ";as=", " "), ";v")
		b.Run(name, func(b *testing.B) {
			for range b.N {
				runtime.GC()
				debug.FreeOSMemory()
				before := resident(b)
				stop := make(chan struct{})
				peak := make(chan int)
				go func() {
					most := 0
					for {
						select {
						case <-stop:
							peak <- most
							return
						case <-time.After(5 * time.Millisecond):
							most = max(most, resident(b))
						}
					}
				}()
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() { f.drain(b, accept) })
				}
				wg.Wait()
				close(stop)
				b.ReportMetric(float64(before)/1024, "MB-before")
				b.ReportMetric(float64(<-peak)/1024, "MB-peak")
				ended, after := time.Now(), resident(b)
				for ; after > before*6/5 && time.Since(ended) < 30*time.Second; after = resident(b) {
					time.Sleep(100 * time.Millisecond)
				}
				b.ReportMetric(time.Since(ended).Seconds(), "s-until-back")
				b.ReportMetric(float64(after)/1024, "MB-after")
			}
		})
	}
}

// drain lists all pods and throws the list away.
func (f *fixture) drain(t testing.TB, accept string) {
	req, err := http.NewRequest("GET", f.url+"/api/v1/pods", nil)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := f.http.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Logf("%s: %d bytes, then %v: the minute that a request has was over", accept, n, err)
	}
}

// resident is what this process has in memory, in KiB.
func resident(t testing.TB) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Error(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kib := 0
	_, _ = fmt.Sscan(after, &kib)
	return kib
}
