package controlplane_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/store"
)

// fleet returns the manifest of the nth of many definitions, with a schema of about size bytes as those of cloud operators have: objects in
// objects, each field with a sentence on it. Twenty share a group.
func fleet(n, size int) []byte {
	const sentence = "Identifier %d of the resource that this field refers to, as the provider returns it; changing it makes a new one."
	fields := 0
	var level func(depth int) map[string]any
	level = func(depth int) map[string]any {
		properties := map[string]any{}
		for i := range 12 {
			fields++
			field := map[string]any{"type": "string", "description": fmt.Sprintf(sentence, n*10000+fields)}
			switch {
			case depth > 0 && i == 0:
				field = map[string]any{"type": "array", "description": field["description"], "items": level(depth - 1)}
			case depth > 0 && i == 1:
				field = level(depth - 1)
			case i == 2:
				field["enum"] = []any{"one", "two", "three"}
			case i == 3:
				field["type"] = "integer"
			}
			properties[fmt.Sprintf("field%d", fields)] = field
		}
		return map[string]any{"type": "object", "description": fmt.Sprintf(sentence, n), "properties": properties}
	}
	spec := map[string]any{}
	for i := 0; fields*160 < size; i++ {
		spec[fmt.Sprintf("part%d", i)] = level(2)
	}
	plural, group := fmt.Sprintf("things%d", n), fmt.Sprintf("group%d.example.com", n/20)
	manifest := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": plural + "." + group},
		"spec": map[string]any{
			"group": group, "scope": "Cluster", "names": map[string]any{"plural": plural, "kind": fmt.Sprintf("Thing%d", n)},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{
					"spec":   map[string]any{"type": "object", "properties": spec},
					"status": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
				}}}}},
		},
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		panic(err)
	}
	return b
}

// cpu returns the time that this process has spent computing.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident returns this process's memory in MB, after what is free has been given back.
func resident() float64 {
	debug.FreeOSMemory()
	var pages int
	b, _ := os.ReadFile("/proc/self/statm")
	_, _ = fmt.Sscan(string(b), new(int), &pages)
	return float64(pages*os.Getpagesize()) / 1e6
}

// BenchmarkDefinitions is what many definitions with schemas of 30 to 300 kB cost until they are established and in OpenAPI v3's index.
func BenchmarkDefinitions(b *testing.B) {
	for _, count := range []int{100, 1000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for b.Loop() {
				measureDefinitions(b, count)
			}
		})
	}
}

func measureDefinitions(b *testing.B, count int) {
	p := openPlain(b, store.NewMem())
	defer p.end()
	p.must(200, "", "GET", "/openapi/v3", "")
	memory, began, sent, making := resident(), time.Now(), 0, time.Duration(0)
	spent := cpu()
	for n := range count {
		before := cpu()
		m := fleet(n, 30_000+n%10*30_000)
		making += cpu() - before
		sent += len(m)
		if code, out := p.send("POST", definitionsPath, bytes.NewReader(m)); code != 201 {
			b.Fatalf("%d %s", code, out)
		}
	}
	for {
		_, index := p.do("GET", "/openapi/v3", "")
		rows := p.must(200, "", "GET", definitionsPath, "", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
		if strings.Count(index, ".example.com/v1?hash=") == count/20 && strings.Count(rows, ",true]") == count {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s")
	b.ReportMetric((cpu() - spent - making).Seconds(), "cpu-s")
	b.ReportMetric(resident()-memory, "MB-RSS")
	b.ReportMetric(float64(sent)/1e6, "MB-sent")
	if path := os.Getenv("KNARR_HEAP_PROFILE"); path != "" {
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		if err := pprof.WriteHeapProfile(f); err != nil {
			b.Fatal(err)
		}
	}
}
