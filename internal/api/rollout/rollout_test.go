package rollout

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func with(text string) map[string]string { return map[string]string{How: text} }

func TestStrategies(t *testing.T) {
	if s, err := StrategyIn(nil); s != nil || err != nil {
		t.Errorf("no annotation is %v, %v", s, err)
	}
	s, err := StrategyIn(with(`
strategy: canary
steps:
- weight: 20
- pause: 90s
- job: smoke
- weight: 50
- cronJob: soak
- pause: untilPromoted
checks:
- {source: restarts, max: 0}
- {source: pods, metric: errors, selector: "code=500", max: 500m, for: 1m}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.Steps); got != "[weight: 20 pause: 90s job: smoke weight: 50 cronJob: soak pause: untilPromoted]" {
		t.Errorf("steps %s", got)
	}
	if d, forever := s.Steps[1].Duration(); d != 90*time.Second || forever {
		t.Errorf("the pause is %v, %v", d, forever)
	}
	if _, forever := s.Steps[5].Duration(); !forever {
		t.Error("a pause until promotion ends by itself")
	}
	if got := fmt.Sprint(s.Checks[0].Patience(), s.Checks[1].Patience(), s.Checks[0], s.Checks[1]); got != "15s 1m0s restarts pods metric errors" {
		t.Errorf("checks %s", got)
	}
	if s, err = StrategyIn(with("{strategy: blueGreen, keepOld: 5m, steps: [{job: smoke}], onFailure: hold}")); err != nil || s.KeepOld.Duration != 5*time.Minute || s.OnFailure != Hold {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     `strategy: "" is neither "canary" nor "blueGreen"`,
		"strategy: [":                          "yaml: line 1",
		"- weight: 1":                          "cannot unmarshal array",
		"{strategy: rolling}":                  `"rolling" is neither`,
		"{strategy: canary}":                   "a canary has at least one",
		"{strategy: canary, step: []}":         `unknown field "step"`,
		"{strategy: canary, strategy: canary}": `key "strategy" already set`,
		"{strategy: canary, steps: [{wieght: 1}]}":                                          `unknown field "wieght"`,
		"{strategy: canary, steps: [{}]}":                                                   "steps[0]: a step is one of",
		"{strategy: canary, steps: [{weight: 1, job: a}]}":                                  "steps[0]: a step is one of",
		"{strategy: canary, steps: [{weight: 0}]}":                                          "0 is not between 1 and 100",
		"{strategy: canary, steps: [{weight: 101}]}":                                        "101 is not between",
		"{strategy: canary, steps: [{weight: 20%}]}":                                        "cannot unmarshal string",
		"{strategy: canary, steps: [{weight: 5}, {pause: 1s}, {weight: 5}]}":                "steps[2]: weight: 5 is not more than the 5 before it",
		"{strategy: canary, steps: [{pause: forever}]}":                                     `"forever" is neither a duration`,
		"{strategy: canary, steps: [{pause: -1s}]}":                                         "neither a duration",
		"{strategy: canary, steps: [{job: Not_A_Name}]}":                                    "is not the name of an object",
		"{strategy: canary, steps: [{weight: 5}], keepOld: 1m}":                             "keepOld: only blueGreen",
		"{strategy: canary, steps: [{weight: 5}], onFailure: explode}":                      "onFailure:",
		"{strategy: blueGreen, steps: [{weight: 5}]}":                                       "only a canary has weights",
		"{strategy: blueGreen, keepOld: -1m}":                                               "keepOld: it is negative",
		"{strategy: blueGreen, keepOld: soon}":                                              "invalid duration",
		"{strategy: blueGreen, checks: [{source: errors, max: 1}]}":                         `checks[0]: source: "errors" is none of`,
		"{strategy: blueGreen, checks: [{source: cpu}]}":                                    "neither max nor min",
		"{strategy: blueGreen, checks: [{source: cpu, metric: a, max: 1}]}":                 "neither metric nor selector",
		"{strategy: blueGreen, checks: [{source: pods, max: 1}]}":                           "metric is missing",
		"{strategy: blueGreen, checks: [{source: cpu, max: 1, min: 2}]}":                    "max 1 is less than min 2",
		"{strategy: blueGreen, checks: [{source: cpu, max: much}]}":                         "quantities must match",
		"{strategy: blueGreen, checks: [{source: cpu, max: 1, for: -1s}]}":                  "for: it is negative",
		"{strategy: blueGreen, checks: [{source: pods, metric: a, selector: '=', max: 1}]}": "selector:",
		"{strategy: canary, steps: [" + strings.Repeat("{job: a},", 51) + "]}":              "at most 50",
	} {
		if s, err := StrategyIn(with(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "annotation knarr.io/rollout: ") {
			t.Errorf("%s: %+v, %v; want %s", text, s, err, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	bad := map[string]string{How: "{strategy: canary}", OnConfigChange: "yes", Action: "go"}
	if got := Warnings(bad, nil, true); len(got) != 3 {
		t.Errorf("warnings of a Deployment %q", got)
	}
	if got := Warnings(bad, bad, true); got != nil {
		t.Errorf("warnings of what was there before: %q", got)
	}
	if got := strings.Join(Warnings(bad, map[string]string{OnConfigChange: "yes"}, false), "\n"); strings.Count(got, "only Deployments have it") != 2 || strings.Contains(got, "config") {
		t.Errorf("warnings of a StatefulSet %q", got)
	}
	good := map[string]string{How: "{strategy: canary, steps: [{weight: 1}]}", OnConfigChange: "true", Action: Promote}
	if got := Warnings(good, nil, true); got != nil {
		t.Errorf("warnings of what is right: %q", got)
	}
}
