package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// fill creates n pods.
func fill(b *testing.B, f *fixture, n int) {
	b.Helper()
	objs := make([]api.Object, n)
	for i := range objs {
		objs[i] = testPod(i)
	}
	for _, r := range f.client.CreateMany(context.Background(), objs) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

// testPod is the i-th of many pods.
func testPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%05d", i), Namespace: "default", Labels: map[string]string{"app": "bench", "n": fmt.Sprint(i % 100)}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.example/app:v1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}, {Name: "C", Value: "d"}},
			Ports: []corev1.ContainerPort{{ContainerPort: 80}}, VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
	}
}

// BenchmarkHandler is the cost of requests without the network.
func BenchmarkHandler(b *testing.B) {
	f := start(b)
	fill(b, f, 10_000)
	for name, c := range map[string]struct{ path, accept string }{
		"get":             {"/api/v1/namespaces/default/pods/pod-00007", ""},
		"list 10k json":   {"/api/v1/pods", ""},
		"list 10k proto":  {"/api/v1/pods", "application/vnd.kubernetes.protobuf"},
		"list 500 table":  {"/api/v1/pods?limit=500", "application/json;as=Table;v=v1;g=meta.k8s.io"},
		"list by label":   {"/api/v1/pods?labelSelector=n%3D7", ""},
		"discovery":       {"/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"},
		"not found":       {"/api/v1/namespaces/default/pods/none", ""},
		"health":          {"/livez", ""},
		"list 1 from 10k": {"/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dpod-00007", ""},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", c.path, nil)
			r.Header.Set("Accept", c.accept)
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				w := &counter{header: http.Header{}}
				f.server.ServeHTTP(w, r)
				size = w.size
			}
			b.SetBytes(int64(size))
		})
	}
	b.Run("create", func(b *testing.B) {
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			i++
			r := httptest.NewRequest("POST", "/api/v1/namespaces/default/pods", strings.NewReader(strings.Replace(pod, `"name":"a"`, fmt.Sprintf(`"name":"b-%d"`, i), 1)))
			w := &counter{header: http.Header{}}
			if f.server.ServeHTTP(w, r); w.code != 201 {
				b.Fatal(w.code)
			}
		}
	})
}

// counter is a response that is thrown away.
type counter struct {
	header http.Header
	code   int
	size   int
}

func (c *counter) Header() http.Header         { return c.header }
func (c *counter) WriteHeader(code int)        { c.code = code }
func (c *counter) Write(b []byte) (int, error) { c.size += len(b); return len(b), nil }

// BenchmarkWatchers is the cost of one change that a thousand clients watch over HTTP, until all of them have it.
func BenchmarkWatchers(b *testing.B) {
	const watchers = 1000
	f := start(b)
	fill(b, f, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var got, running sync.WaitGroup
	for range watchers {
		req, err := http.NewRequestWithContext(ctx, "GET", f.url+"/api/v1/pods?watch=true&resourceVersion="+f.registry.Revision(), nil)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		running.Go(func() {
			defer resp.Body.Close()
			r := bufio.NewReaderSize(resp.Body, 16<<10)
			for {
				if _, err := r.ReadSlice('\n'); err != nil {
					return
				}
				got.Done()
			}
		})
	}
	i := 0
	for b.Loop() {
		i++
		got.Add(watchers)
		req, err := http.NewRequestWithContext(ctx, "PATCH", f.url+"/api/v1/namespaces/default/pods/pod-00000", strings.NewReader(fmt.Sprintf(`{"metadata":{"labels":{"i":"%d"}}}`, i)))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/merge-patch+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		got.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/watchers, "ns/event")
	cancel()
	running.Wait()
}
