package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// The definitions of measureDefinitions: as many as the providers of a few clouds bring, in groups of twenty.
const (
	definitionCount  = 1000
	definitionsGroup = 20
	definitionsPath  = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
)

// measureDefinitions creates definitions with schemas of 30 to 300 kB and waits until what they define is in discovery and in OpenAPI; then it
// writes and lists objects of one more, which has twenty rules.
func measureDefinitions(ctx context.Context, b *bench, system string) (err error) {
	c, err := b.startAPI(ctx, system)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	count, settle := definitionCount, 15*time.Second
	if b.quick {
		count, settle = definitionCount/10, 3*time.Second
	}
	if err := sleep(ctx, settle); err != nil { // what follows from the start
		return err
	}
	if err := b.define(ctx, c, count, settle); err != nil {
		return err
	}
	if err := b.firstCall(ctx, c); err != nil {
		return err
	}
	return b.measureRuled(ctx, c)
}

// define creates the definitions and measures what they cost until they can be used.
func (b *bench) define(ctx context.Context, c *cluster, count int, settle time.Duration) error {
	before, err := c.memory()
	if err != nil {
		return err
	}
	spent, err := c.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	var next, sent atomic.Int64
	made, _, err := repeat(4, b.limit, func() bool { return next.Load() >= int64(count) }, func() error {
		n := next.Add(1) - 1
		if n >= int64(count) {
			return nil
		}
		body := definition(int(n), 30_000+int(n)%10*30_000)
		sent.Add(int64(len(body)))
		return c.send(ctx, http.MethodPost, definitionsPath, body)
	})
	if err != nil {
		return err
	}
	made = min(made, int64(count))
	groups := (count + definitionsGroup - 1) / definitionsGroup
	if err := c.wait(ctx, "all definitions to be served", b.limit, 200*time.Millisecond, func(ctx context.Context) error {
		return c.served(ctx, groups, count)
	}); err != nil {
		b.results.note(c.system, rowDefined, fmt.Sprintf("not done in time, after %d were made: %v", made, err))
	}
	b.results.add(c.system, rowDefined, time.Since(began).Seconds())
	after, err := c.cpu()
	if err != nil {
		return err
	}
	b.results.add(c.system, rowDefinedCPU, (after - spent).Seconds())
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	m, err := c.memory()
	if err != nil {
		return err
	}
	b.results.add(c.system, rowDefinedRSS, m.resident-before.resident)
	b.results.add(c.system, rowDefinedAnonymous, m.anonymous-before.anonymous)
	b.results.note(c.system, rowDefined, fmt.Sprintf("%.0f MB were sent", float64(sent.Load())/1e6))
	return nil
}

// served returns an error until discovery and the index of OpenAPI have all groups, and discovery all resources of them.
func (c *cluster) served(ctx context.Context, groups, count int) error {
	index, err := c.get(ctx, "/openapi/v3", jsonType)
	if err != nil {
		return err
	}
	found := 0
	for g := range groups {
		path := fmt.Sprintf("apis/group%d.bench.example.com/v1", g)
		if !strings.Contains(string(index), `"`+path+`"`) {
			return fmt.Errorf("OpenAPI has no %s", path)
		}
		body, err := c.get(ctx, "/"+path, jsonType)
		if err != nil {
			return err
		}
		var list struct{ Resources []struct{ Name string } }
		if err := json.Unmarshal(body, &list); err != nil {
			return err
		}
		for _, r := range list.Resources {
			if !strings.Contains(r.Name, "/") { // subresources are not counted
				found++
			}
		}
	}
	if found < count {
		return fmt.Errorf("%d resources of %d are served", found, count)
	}
	return nil
}

// firstCall times kubectl that has no cache yet.
func (b *bench) firstCall(ctx context.Context, c *cluster) error {
	ctx, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	kubectl := filepath.Join(filepath.Dir(b.knarr), "libexec", "kubectl")
	began := time.Now()
	out, err := exec.CommandContext(ctx, kubectl, "--kubeconfig", c.kubeconfig, "--cache-dir", filepath.Join(c.dir, "cache"), "get", "things0").CombinedOutput()
	if err != nil {
		return fmt.Errorf("kubectl get: %w\n%s", err, out)
	}
	b.results.add(c.system, rowFirstCall, float64(time.Since(began).Milliseconds()))
	return nil
}

// definition returns the nth of many definitions, with a schema of about size bytes as those of cloud operators have: objects in objects, each
// field with a sentence on it.
func definition(n, size int) []byte {
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
				field["enum"] = []string{"one", "two", "three"}
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
	return definitionOf(fmt.Sprintf("group%d.bench.example.com", n/definitionsGroup), fmt.Sprintf("things%d", n), fmt.Sprintf("Thing%d", n),
		map[string]any{"type": "object", "properties": spec})
}

// definitionOf returns a definition of one version whose objects have a spec.
func definitionOf(group, plural, kind string, spec map[string]any) []byte {
	b, err := json.Marshal(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": plural + "." + group},
		"spec": map[string]any{
			"group": group, "scope": "Cluster", "names": map[string]any{"plural": plural, "kind": kind},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{
				"openAPIV3Schema": map[string]any{"type": "object", "properties": map[string]any{"spec": spec}}}}},
		},
	})
	if err != nil {
		panic(err) // it is made of maps and strings
	}
	return b
}
