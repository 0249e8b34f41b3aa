package laws

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/features.md")

// entry is a line of a file in testdata: a name, a state and what there is to say.
type entry struct{ name, state, text string }

// readEntries reads the lines of a file, in which each state must be one of those given.
func readEntries(t *testing.T, file string, states ...string) []entry {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var out []entry
	for n, line := range strings.Split(string(content), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(line, "\t", 3)
		if len(parts) != 3 || !slices.Contains(states, parts[1]) {
			t.Fatalf("testdata/%s:%d: want NAME, one of %v and a text, with tabs between", file, n+1, states)
		}
		out = append(out, entry{parts[0], parts[1], parts[2]})
	}
	return out
}

// A gate's constant, its declaration and its newest version, as Kubernetes' source has them.
var (
	gateName    = regexp.MustCompile(`(?m)^\t(\w+)\s+featuregate\.Feature = "(\w+)"`)
	gateSpecs   = regexp.MustCompile(`(?ms)^\t([\w.]+): \{\n(.*?)^\t\},`)
	gateVersion = regexp.MustCompile(`Default: (\w+), PreRelease: featuregate\.(\w+)`)
)

// gatesThatAreOn reads from Kubernetes' source which feature gates are GA, or Beta and on.
func gatesThatAreOn(t *testing.T) map[string]bool {
	t.Helper()
	on := map[string]bool{}
	for _, mod := range []string{"k8s.io/kubernetes", "k8s.io/apiserver"} {
		cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", mod)
		cmd.Dir = root
		dir, err := cmd.Output()
		if err != nil {
			t.Fatalf("finding the source of %s: %v", mod, err)
		}
		source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "pkg", "features", "kube_features.go"))
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		for _, m := range gateName.FindAllStringSubmatch(string(source), -1) {
			names[m[1]] = m[2]
		}
		_, declarations, ok := strings.Cut(string(source), "map[featuregate.Feature]featuregate.VersionedSpecs{")
		if !ok {
			t.Fatalf("the feature gates of %s are declared in another way", mod)
		}
		for _, m := range gateSpecs.FindAllStringSubmatch(declarations, -1) {
			versions := gateVersion.FindAllStringSubmatch(m[2], -1)
			if len(versions) == 0 {
				continue
			}
			newest := versions[len(versions)-1]
			name := m[1][strings.LastIndex(m[1], ".")+1:]
			if given := names[name]; given != "" {
				name = given
			}
			if newest[1] == "true" && (newest[2] == "GA" || newest[2] == "Beta") {
				on[name] = true
			}
		}
	}
	if len(on) < 100 {
		t.Fatalf("only %d feature gates found", len(on))
	}
	return on
}

// TestEveryFeatureGateIsAnswered: for each gate that Kubernetes has on, docs/features.md says what Knarr does, and what it names exists.
func TestEveryFeatureGateIsAnswered(t *testing.T) {
	gates := readEntries(t, "gates.txt", "yes", "part", "no", "other")
	on := gatesThatAreOn(t)
	for _, g := range gates {
		if !on[g.name] {
			t.Errorf("testdata/gates.txt: %s is no gate that Kubernetes has on", g.name)
		}
		delete(on, g.name)
		if g.state != "yes" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, g.text)); err != nil {
			t.Errorf("testdata/gates.txt: %s names %s, which is not there", g.name, g.text)
		}
	}
	for name := range on {
		t.Errorf("testdata/gates.txt has no line for the feature gate %s", name)
	}
}

// TestFeaturesDocument: docs/features.md is what the two lists say.
func TestFeaturesDocument(t *testing.T) {
	gates := readEntries(t, "gates.txt", "yes", "part", "no", "other")
	fields := readEntries(t, "fields.txt", "elsewhere", "refused", "kept", "no", "never")
	var b strings.Builder
	counts := map[string]int{}
	for _, g := range gates {
		counts[g.state]++
	}
	fmt.Fprintf(&b, `# Features

What Knarr does about every feature gate that Kubernetes 1.37 has on, and about every field of Pod, Service, Node, ResourceQuota and Namespace. Written from
[two lists](../internal/laws/testdata) by %s; the laws compare them with Kubernetes' source and with what the code names, so a new gate or field
without an answer, and an answer that is no longer true, fail the tests.

## Feature gates

Of %d gates that are GA, or Beta and on, %d are carried out, %d in part, %d are missing and %d have no outside.

| gate | carried out | where, or what happens |
|---|---|---|
`, "`go test ./internal/laws -run Features -update`", len(gates), counts["yes"], counts["part"], counts["no"], counts["other"])
	words := map[string]string{"yes": "yes", "part": "in part", "no": "**no**", "other": "-"}
	for _, g := range gates {
		text := g.text
		if g.state == "yes" {
			text = "`" + text + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", g.name, words[g.state], text)
	}
	b.WriteString(`
## Fields

Fields that no code of Knarr names; all others are carried out. *elsewhere*: a library that Knarr calls reads it. *refused*: the pod does not start and says why. *kept*: stored
and shown for others. *no*: missing. *never*: Kubernetes 1.37 does nothing with it by default either.

| field | state | what there is to say |
|---|---|---|
`)
	for _, f := range fields {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.ReplaceAll(f.name, "*", "\\*"), f.state, f.text)
	}
	file := filepath.Join(root, "docs", "features.md")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != b.String() {
		t.Errorf("docs/features.md is not what the lists say (%v): go test ./internal/laws -run Features -update", err)
	}
}
