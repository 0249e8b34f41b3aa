package podspec

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEnvFileValue(t *testing.T) {
	for _, tc := range []struct{ file, want, fault string }{
		{"K='v'", "v", ""},
		{"# c\n\n  \t# c\n\tA='x'\n  K='v' # c\n", "v", ""},
		{"A='x'\n", "", ""},
		{"K='a#b'", "a#b", ""},
		{"K='  a b  '", "  a b  ", ""},
		{"K='one\ntwo\n'\nA='x'", "one\ntwo\n", ""},
		{"A='K=1\nK='\nK='v'", "v", ""},
		{"K='first'\nK='second'", "first", ""},
		{"K='\"$HOME\\n\"'", "\"$HOME\\n\"", ""},
		{"K='v'\r\n", "v", ""},
		{"K= 'v'", "", ""},
		{"A= 'v'\nK='v'", "v", ""},
		{"K='v'\nnonsense", "v", ""},
		{"nonsense\nK='v'", "", "line 1: missing '='"},
		{"='v'", "", "line 1: empty variable name"},
		{"\nK ='v'", "", "line 2: whitespace before '='"},
		{"K=v", "", "line 1: value must be enclosed"},
		{"K=\"v\"", "", "line 1: value must be enclosed"},
		{"K=", "", "line 1: value must be enclosed"},
		{"A='x'\nK='v'w", "", "line 2: unexpected content"},
		{"A='x'\nK='v\nw", "", "line 2: unclosed single quote"},
		{"A='" + strings.Repeat("x", 70_000) + "'\nK='v'", "", "line 1 is too long"},
	} {
		got, err := EnvFileValue([]byte(tc.file), "K")
		if got != tc.want || (err == nil) != (tc.fault == "") || err != nil && !strings.HasPrefix(err.Error(), tc.fault) {
			t.Errorf("%.40q: %q, %v; want %q, %s", tc.file, got, err, tc.want, tc.fault)
		}
	}
}

// oneFile is volume v, with env.txt in it.
type oneFile string

func (f oneFile) EnvFile(volume, path string) ([]byte, error) {
	if volume != "v" {
		return nil, errors.New("no such volume")
	}
	if path != "env.txt" {
		return nil, fs.ErrNotExist
	}
	return []byte(f), nil
}

func TestEnvFromAFile(t *testing.T) {
	yes := true
	for _, tc := range []struct {
		path, key string
		optional  *bool
		want      string // "-" for not set
		fault     string
	}{
		{"env.txt", "K", nil, "v", ""},
		{"env.txt", "EMPTY", nil, "", `environment variable key "EMPTY" not found`},
		{"env.txt", "EMPTY", &yes, "-", ""},
		{"env.txt", "NONE", nil, "", `environment variable key "NONE" not found`},
		{"env.txt", "NONE", &yes, "-", ""},
		{"other", "K", nil, "", "reading env file"},
		{"other", "K", &yes, "-", ""},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "X",
			ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "v", Path: tc.path, Key: tc.key, Optional: tc.optional}}}}}}}}
		env, err := Env(t.Context(), pod, &pod.Spec.Containers[0], objects{"services/default": []*corev1.Service{}, "services/": []*corev1.Service{}}, oneFile("K='v'\nEMPTY=''\n"), Facts{})
		got := "-"
		for _, kv := range env {
			if kv.Key == "X" {
				got = string(kv.Value)
			}
		}
		switch {
		case tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)):
			t.Errorf("%s of %s: %v, want %q", tc.key, tc.path, err, tc.fault)
		case tc.fault == "" && (err != nil || got != tc.want):
			t.Errorf("%s of %s: %q, %v; want %q", tc.key, tc.path, got, err, tc.want)
		}
	}
}
