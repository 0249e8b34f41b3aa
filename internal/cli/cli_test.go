package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestConfigFileSetsFlagsButNotOverTheCommandLine(t *testing.T) {
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "knarr.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	flags := func(args ...string) (*pflag.FlagSet, *string, *[]string, *bool) {
		f := pflag.NewFlagSet("server", pflag.ContinueOnError)
		dir, san, agent := f.String("data-dir", "/d", ""), f.StringSlice("tls-san", nil, ""), f.Bool("no-agent", false, "")
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		return f, dir, san, agent
	}
	f, dir, san, agent := flags("--data-dir", "/mine")
	if err := ReadConfigFile(file("data-dir: /file\ntls-san: [a, b]\nno-agent: true\n"), f); err != nil {
		t.Fatal(err)
	}
	if *dir != "/mine" || strings.Join(*san, ",") != "a,b" || !*agent {
		t.Errorf("data-dir %s, tls-san %v, no-agent %v", *dir, *san, *agent)
	}
	for _, tc := range []struct{ content, want string }{
		{"datadir: /x\n", `there is no setting "datadir"`},
		{"no-agent: maybe\n", "no-agent"},
		{"data-dir: [unclosed\n", "knarr.yaml"},
		{"data-dir: /a\ndata-dir: /b\n", "data-dir"},
	} {
		f, _, _, _ := flags()
		if err := ReadConfigFile(file(tc.content), f); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want it to name %q", tc.content, err, tc.want)
		}
	}
	if err := ReadConfigFile(filepath.Join(t.TempDir(), "none"), f); err == nil {
		t.Error("a file that is not there was accepted")
	}
}

func TestKubectlKnowsWhenItNeedsACluster(t *testing.T) {
	for args, want := range map[string][2]bool{ // names a cluster, needs one
		"get pods":                           {false, true},
		"version --client":                   {false, false},
		"--kubeconfig=/x get pods":           {true, true},
		"get pods -s https://127.0.0.1":      {true, true},
		"exec p -- tool --kubeconfig /in/it": {false, true},
		"help":                               {false, false},
	} {
		a := strings.Fields(args)
		if got := [2]bool{namesCluster(a), needsCluster(a)}; got != want {
			t.Errorf("%s: names, needs a cluster: %v, want %v", args, got, want)
		}
	}
}

func TestTailShowsTheLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{1: "three\n", 2: "two\nthree\n", 9: "one\ntwo\nthree\n"} {
		if got := Tail(path, n); got != want {
			t.Errorf("the last %d lines: %q, want %q", n, got, want)
		}
	}
}
