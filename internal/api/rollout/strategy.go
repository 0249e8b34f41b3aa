package rollout

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// Type is a way to roll out.
type Type string

// The types of strategies.
const (
	Canary    Type = "canary"    // a part of the pods first, as the steps say
	BlueGreen Type = "blueGreen" // all new pods beside the old ones, and Services go over to them at once
)

// What a failure may lead to.
const (
	RollBack = "rollBack"
	Hold     = "hold"
)

// untilPromoted is a pause without an end of its own.
const untilPromoted = "untilPromoted"

// Limits that keep a Strategy readable and its state small.
const (
	maxSteps  = 50
	maxChecks = 20
)

// defaultFor is how long a check has to fail before it counts.
const defaultFor = 15 * time.Second

// Strategy is how a Deployment is rolled out.
type Strategy struct {
	Type   Type    `json:"strategy"`
	Steps  []Step  `json:"steps,omitempty"`
	Checks []Check `json:"checks,omitempty"`
	// OnFailure is what happens when a Job or a check fails, or pods do not become available in time: RollBack unless Hold.
	OnFailure string `json:"onFailure,omitempty"`
	// KeepOld is how long the old pods stay after Services have gone over to the new ones (BlueGreen).
	KeepOld *metav1.Duration `json:"keepOld,omitempty"`
}

// Step is one thing to do or to wait for; exactly one of its fields is set.
type Step struct {
	Weight  *int32 `json:"weight,omitempty"`  // how much of a hundred pods is new
	Pause   string `json:"pause,omitempty"`   // a duration, or untilPromoted
	Job     string `json:"job,omitempty"`     // a suspended Job of the namespace; a copy of it has to succeed
	CronJob string `json:"cronJob,omitempty"` // likewise, of its jobTemplate
}

// Sources of figures.
const (
	Restarts = "restarts" // of the new pods' containers, all together
	CPU      = "cpu"      // average of the new pods, metrics.k8s.io
	Memory   = "memory"
	Pods     = "pods"     // average of a metric of the new pods, custom.metrics.k8s.io
	External = "external" // sum of a metric, external.metrics.k8s.io
)

// Check is a figure that has to stay within bounds during the roll-out.
type Check struct {
	Source   string             `json:"source"`
	Metric   string             `json:"metric,omitempty"`   // its name, for Pods and External
	Selector string             `json:"selector,omitempty"` // of labels of the metric
	Max      *resource.Quantity `json:"max,omitempty"`
	Min      *resource.Quantity `json:"min,omitempty"`
	For      *metav1.Duration   `json:"for,omitempty"` // how long it has to be out of bounds
}

func mistake(key, format string, args ...any) error {
	return fmt.Errorf("annotation %s: %s", key, fmt.Sprintf(format, args...))
}

// StrategyIn reads the strategy of an object's annotations; nil where there is none.
func StrategyIn(annotations map[string]string) (*Strategy, error) {
	text, ok := annotations[How]
	if !ok {
		return nil, nil
	}
	s := &Strategy{}
	if err := yaml.UnmarshalStrict([]byte(text), s); err != nil {
		return nil, mistake(How, "%s", reason(err))
	}
	if err := s.check(); err != nil {
		return nil, mistake(How, "%v", err)
	}
	return s, nil
}

// reason is an error of the decoder without the ways that it took.
func reason(err error) string {
	out := err.Error()
	for _, prefix := range []string{"error unmarshaling JSON: ", "while decoding JSON: ", "error converting YAML to JSON: ", "json: "} {
		out = strings.TrimPrefix(out, prefix)
	}
	return out
}

func (s *Strategy) check() error {
	switch {
	case s.Type != Canary && s.Type != BlueGreen:
		return fmt.Errorf("strategy: %q is neither %q nor %q", s.Type, Canary, BlueGreen)
	case s.OnFailure != "" && s.OnFailure != RollBack && s.OnFailure != Hold:
		return fmt.Errorf("onFailure: %q is neither %q nor %q", s.OnFailure, RollBack, Hold)
	case s.KeepOld != nil && s.Type != BlueGreen:
		return fmt.Errorf("keepOld: only %s has it", BlueGreen)
	case s.KeepOld != nil && s.KeepOld.Duration < 0:
		return errors.New("keepOld: it is negative")
	case s.Type == Canary && len(s.Steps) == 0:
		return errors.New("steps: a canary has at least one")
	case len(s.Steps) > maxSteps:
		return fmt.Errorf("steps: there are %d, and at most %d are allowed", len(s.Steps), maxSteps)
	case len(s.Checks) > maxChecks:
		return fmt.Errorf("checks: there are %d, and at most %d are allowed", len(s.Checks), maxChecks)
	}
	last := int32(0)
	for i, step := range s.Steps {
		if err := step.check(s.Type, last); err != nil {
			return fmt.Errorf("steps[%d]: %w", i, err)
		}
		if step.Weight != nil {
			last = *step.Weight
		}
	}
	for i, c := range s.Checks {
		if err := c.check(); err != nil {
			return fmt.Errorf("checks[%d]: %w", i, err)
		}
	}
	return nil
}

func (s Step) check(t Type, last int32) error {
	set := 0
	for _, is := range []bool{s.Weight != nil, s.Pause != "", s.Job != "", s.CronJob != ""} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New("a step is one of weight, pause, job and cronJob")
	case s.Weight != nil && t != Canary:
		return fmt.Errorf("weight: only a %s has weights", Canary)
	case s.Weight != nil && (*s.Weight < 1 || *s.Weight > 100):
		return fmt.Errorf("weight: %d is not between 1 and 100", *s.Weight)
	case s.Weight != nil && *s.Weight <= last:
		return fmt.Errorf("weight: %d is not more than the %d before it", *s.Weight, last)
	case s.Pause != "" && s.Pause != untilPromoted:
		if d, err := time.ParseDuration(s.Pause); err != nil || d <= 0 {
			return fmt.Errorf("pause: %q is neither a duration like 10m nor %q", s.Pause, untilPromoted)
		}
	}
	if name := s.Job + s.CronJob; name != "" {
		if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
			return fmt.Errorf("%q is not the name of an object: %s", name, errs[0])
		}
	}
	return nil
}

func (c Check) check() error {
	switch c.Source {
	case Restarts, CPU, Memory:
		if c.Metric != "" || c.Selector != "" {
			return fmt.Errorf("source %s has neither metric nor selector", c.Source)
		}
	case Pods, External:
		if c.Metric == "" {
			return fmt.Errorf("source %s: metric is missing", c.Source)
		}
	default:
		return fmt.Errorf("source: %q is none of %s, %s, %s, %s, %s", c.Source, Restarts, CPU, Memory, Pods, External)
	}
	if _, err := labels.Parse(c.Selector); err != nil {
		return fmt.Errorf("selector: %w", err)
	}
	switch {
	case c.Max == nil && c.Min == nil:
		return errors.New("it has neither max nor min")
	case c.Max != nil && c.Min != nil && c.Max.Cmp(*c.Min) < 0:
		return fmt.Errorf("max %s is less than min %s", c.Max, c.Min)
	case c.For != nil && c.For.Duration < 0:
		return errors.New("for: it is negative")
	}
	return nil
}

// Duration is how long the pause is. forever is one that lasts until somebody promotes.
func (s Step) Duration() (d time.Duration, forever bool) {
	if s.Pause == untilPromoted {
		return 0, true
	}
	d, _ = time.ParseDuration(s.Pause) // check has read it before
	return d, false
}

// String is the step as users write it.
func (s Step) String() string {
	switch {
	case s.Weight != nil:
		return fmt.Sprintf("weight: %d", *s.Weight)
	case s.Pause != "":
		return "pause: " + s.Pause
	case s.Job != "":
		return "job: " + s.Job
	}
	return "cronJob: " + s.CronJob
}

// Patience is how long the check has to be out of bounds before it has failed.
func (c Check) Patience() time.Duration {
	if c.For != nil {
		return c.For.Duration
	}
	return defaultFor
}

// String names the figure.
func (c Check) String() string {
	if c.Metric != "" {
		return c.Source + " metric " + c.Metric
	}
	return c.Source
}
