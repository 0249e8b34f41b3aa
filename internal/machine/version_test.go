package machine

import (
	"encoding/json"
	"runtime/debug"
	"testing"
)

// Every field of version.Info has a value: clients show them, and some refuse what lacks one.
func TestVersionHasEveryField(t *testing.T) {
	built := &debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "vcs.modified", Value: "true"}, {Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}}}
	for name, info := range map[string]*debug.BuildInfo{"from a checkout": built, "without one": {}, "nil": nil} {
		b, err := json.Marshal(versionOf(info))
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]string
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"major", "minor", "emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor",
			"gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"} {
			if fields[f] == "" {
				t.Errorf("%s: no %s in %s", name, f, b)
			}
		}
	}
	if v := versionOf(built); v.GitCommit != "abc" || v.GitTreeState != "dirty" || v.BuildDate != "2026-01-02T03:04:05Z" {
		t.Errorf("%+v", v)
	}
}
