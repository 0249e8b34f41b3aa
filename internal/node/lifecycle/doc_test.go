package lifecycle

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// story is a pod whose plans are carried out at once by a runtime in which nothing fails, step by step.
type story struct {
	in Input
	n  int // containers made
}

func begin(spec corev1.PodSpec) *story {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "u", Generation: 1}, Spec: spec}
	return &story{in: Input{Pod: pod, Observed: &Observed{}, Memory: &Memory{}, Now: time.Unix(1000, 0), Node: Node{Runtime: "fake"}}}
}

// step carries out the next plan and says what it was; "" for nothing.
func (s *story) step() string {
	p := Decide(s.in)
	if again := Decide(s.in); !reflect.DeepEqual(p, again) {
		return "decided differently the second time"
	}
	s.in.Now = s.in.Now.Add(time.Second)
	if p.Terminating && s.in.Memory.Terminating.IsZero() {
		s.in.Memory.Terminating = s.in.Now
	}
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	sort.Slice(p.Stop, func(i, j int) bool { return p.Stop[i].Name < p.Stop[j].Name }) // they are begun at the same time
	for i := range p.Stop {
		say("stop %s", p.Stop[i].Name)
		c := s.in.Observed.ByID(p.Stop[i].ID)
		c.State, c.ExitCode, c.FinishedAt = Exited, 143, s.in.Now
	}
	if p.Sandbox {
		say("sandbox %d", p.Attempt)
		for i := range s.in.Observed.Sandboxes {
			s.in.Observed.Sandboxes[i].Ready = false
		}
		s.in.Observed.Sandboxes = append(s.in.Observed.Sandboxes, Sandbox{ID: fmt.Sprint("s", p.Attempt), Attempt: p.Attempt, Ready: true, CreatedAt: s.in.Now})
	}
	for _, start := range p.Start {
		say("start %s/%d", start.Name, start.Attempt)
		s.n++
		s.in.Observed.Containers = append(s.in.Observed.Containers, Container{ID: fmt.Sprint("c", s.n), Name: start.Name, SandboxID: s.in.Observed.Sandbox().ID,
			Attempt: start.Attempt, Round: start.Round, State: Running, CreatedAt: s.in.Now.Add(time.Duration(s.n)), StartedAt: s.in.Now})
	}
	for name, done := range map[string]bool{"teardown": p.Teardown, "remove": p.Remove, "finish": p.Finish} {
		if done {
			say("%s", name)
		}
	}
	s.in.Memory.TornDown = s.in.Memory.TornDown || p.Teardown
	s.in.Memory.Removed = s.in.Memory.Removed || p.Remove
	s.in.Observed.Sort()
	return strings.Join(out, ", ")
}

// exit ends the running container of that name.
func (s *story) exit(name string, code int32) {
	c := s.in.Observed.Newest(name)
	c.State, c.ExitCode, c.FinishedAt = Exited, code, s.in.Now
}

func (s *story) event(what string) {
	verb, rest, _ := strings.Cut(what, " ")
	switch verb {
	case "exit":
		name, code := "", int32(0)
		_, _ = fmt.Sscan(rest, &name, &code)
		s.exit(name, code)
	case "delete":
		grace := int64(30)
		s.in.Pod.DeletionTimestamp, s.in.Pod.DeletionGracePeriodSeconds = &metav1.Time{Time: s.in.Now.Add(30 * time.Second)}, &grace
	case "lose": // the sandbox, with all that runs in it
		for i := range s.in.Observed.Sandboxes {
			s.in.Observed.Sandboxes[i].Ready = false
		}
		for i := range s.in.Observed.Containers {
			if c := &s.in.Observed.Containers[i]; c.State == Running {
				c.State, c.ExitCode, c.FinishedAt = Exited, 137, s.in.Now
			}
		}
	case "forget": // the agent starts anew
		s.in.Memory = &Memory{}
	case "image":
		s.in.Pod.Spec.Containers[0].Image = rest
	}
}

// The stories of doc.go: "> event" is what happens, every other line what is done about it.
func TestStories(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	c := func(names ...string) (out []corev1.Container) {
		for _, n := range names {
			out = append(out, corev1.Container{Name: n, Image: "img:1"})
		}
		return out
	}
	init := func(names ...string) []corev1.Container {
		out := c(names...)
		for i := range out {
			if strings.HasPrefix(out[i].Name, "side") {
				out[i].RestartPolicy = &always
			}
		}
		return out
	}
	// all gives each container a rule by which exit code 42 restarts all, and a policy by which it never restarts alone.
	all := func(list []corev1.Container) []corev1.Container {
		never := corev1.ContainerRestartPolicyNever
		for i := range list {
			if list[i].RestartPolicy == nil {
				list[i].RestartPolicy = &never
			}
			list[i].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
		}
		return list
	}
	for name, tc := range map[string]struct {
		spec  corev1.PodSpec
		story string
	}{
		"a pod runs and is deleted": {corev1.PodSpec{Containers: c("a", "b")},
			"sandbox 0; start a/0, start b/0; > delete; stop a, stop b; teardown; remove; finish"},
		"init containers one by one, sidecars stay and end last": {corev1.PodSpec{InitContainers: init("i", "side1", "j", "side2"), Containers: c("a")},
			"sandbox 0; start i/0; > exit i 0; start side1/0; start j/0; > exit j 0; start side2/0; start a/0; > delete; stop a; stop side2; stop side1; teardown; remove; finish"},
		"a pod that is to run once ends by itself": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, InitContainers: init("side"), Containers: c("a")},
			"sandbox 0; start side/0; start a/0; > exit a 0; stop side; teardown; finish"},
		"an init container that fails for good ends the pod": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, InitContainers: init("i"), Containers: c("a")},
			"sandbox 0; start i/0; > exit i 1; teardown; finish"},
		"a container that crashes is restarted at once": {corev1.PodSpec{Containers: c("a", "b")},
			"sandbox 0; start a/0, start b/0; > exit a 1; start a/1"},
		"in a new sandbox init containers begin from the first": {corev1.PodSpec{InitContainers: init("i"), Containers: c("a")},
			"sandbox 0; start i/0; > exit i 0; start a/0; > lose; sandbox 1; start i/1; > exit i 0; start a/1"},
		"all containers restart in the same sandbox, from the first init container": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever,
			InitContainers: init("i", "side"), Containers: append(all(c("a")), c("b")...)},
			"sandbox 0; start i/0; > exit i 0; start side/0; start a/0, start b/0; > exit a 42; stop b, stop side; start i/1; > exit i 0; start side/1; " +
				"start a/1, start b/1; > exit a 1; > exit b 0; stop side; teardown; finish"},
		"a container that ended runs again with all others": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: append(all(c("a")), c("b")...)},
			"sandbox 0; start a/0, start b/0; > exit b 0; > exit a 42; start a/1, start b/1; > exit b 0; > exit a 0; teardown; finish"},
		"an init container restarts those before it": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, InitContainers: append(init("i"), all(init("j"))...), Containers: c("a")},
			"sandbox 0; start i/0; > exit i 0; start j/0; > exit j 42; start i/1; > exit i 0; start j/1; > exit j 0; start a/0"},
		"a restart of all that a crash of the agent interrupted goes on": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, InitContainers: init("i"), Containers: append(all(c("a")), c("b")...)},
			"sandbox 0; start i/0; > exit i 0; start a/0, start b/0; > exit a 42; stop b; > forget; start i/1; > forget; > exit i 0; start a/1, start b/1"},
		"a pod that is deleted does not restart its containers": {corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: append(all(c("a")), c("b")...)},
			"sandbox 0; start a/0, start b/0; > exit a 42, delete; stop b; teardown; remove; finish"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(tc.spec)
			for _, line := range strings.Split(tc.story, "; ") {
				if events, ok := strings.CutPrefix(line, "> "); ok {
					if events != "forget" { // which may happen in the midst of it
						if more := s.step(); more != "" {
							t.Fatalf("before %q: %s", events, more)
						}
					}
					for event := range strings.SplitSeq(events, ", ") {
						s.event(event)
					}
					continue
				}
				if got := s.step(); got != line {
					t.Fatalf("%q, want %q", got, line)
				}
			}
		})
	}
}

// The pod of every story was asked for its plan twice at every step; here once more with everything under way.
func TestDecidingTwiceGivesTheSamePlan(t *testing.T) {
	s := begin(corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "img:1"}}})
	for range 3 {
		s.step()
	}
	for _, busy := range []Busy{{}, {Sandbox: true}, {Start: true}, {Teardown: true}, {Stopping: map[string]time.Time{"c1": s.in.Now.Add(time.Minute)}}} {
		for _, event := range []string{"", "delete", "lose"} {
			s.in.Busy = busy
			s.event(event)
			if a, b := Decide(s.in), Decide(s.in); !reflect.DeepEqual(a, b) {
				t.Errorf("%+v after %q: %+v, then %+v", busy, event, a, b)
			}
		}
	}
}
