package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs knarr kubectl with args and returns what it prints; stdin may be empty.
func run(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, cluster.bin, append([]string{"kubectl", "--kubeconfig", filepath.Join(cluster.dataDir, "kubeconfig")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w\n%s%s", strings.Join(args, " "), err, errs.String(), out.String())
	}
	return out.String(), nil
}

// kubectl runs kubectl and fails the test where it fails.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := run("", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply applies a manifest.
func apply(t testing.TB, namespace, manifest string) {
	t.Helper()
	if _, err := run(manifest, "-n", namespace, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// refused runs kubectl, which must fail, and returns what it says.
func refused(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := run(stdin, args...)
	if err == nil {
		t.Fatalf("kubectl %s should have failed, but printed:\n%s", strings.Join(args, " "), out)
	}
	return err.Error()
}

// namespace makes a namespace for the test and removes it, with all that is in it, afterwards.
func namespace(t testing.TB) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	if len(name) > 50 {
		name = name[:50]
	}
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := run("", "-n", name, "get", "all,events", "-o", "wide")
			t.Logf("what was in namespace %s:\n%s", name, out)
		}
		if out, err := run("", "delete", "namespace", name, "--timeout=90s"); err != nil {
			t.Errorf("removing namespace %s: %v\n%s", name, err, out)
		}
	})
	eventually(t, 10*time.Second, "the default service account", func() error {
		_, err := run("", "-n", name, "get", "serviceaccount", "default")
		return err
	})
	return name
}

// eventually waits until check succeeds and fails the test with its last error otherwise.
func eventually(t testing.TB, timeout time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, timeout, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// get reads an object as JSON into out.
func get(t testing.TB, out any, args ...string) {
	t.Helper()
	if err := json.Unmarshal([]byte(kubectl(t, append(args, "-o", "json")...)), out); err != nil {
		t.Fatal(err)
	}
}
