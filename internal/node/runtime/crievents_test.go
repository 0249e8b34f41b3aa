package runtime

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	before := map[string]seen{
		"same": {"pod", phaseRunning}, "ended": {"pod", phaseRunning}, "gone": {"pod", phaseStopped}, "started": {"pod", phaseCreated},
	}
	after := map[string]seen{
		"same": {"pod", phaseRunning}, "ended": {"pod", phaseStopped}, "started": {"pod", phaseRunning},
		"new": {"pod2", phaseCreated}, "new and running": {"pod2", phaseRunning}, "new and over": {"pod2", phaseStopped},
	}
	for _, test := range []struct {
		name          string
		before, after map[string]seen
		want          string
	}{
		{"nothing", before, before, ""},
		{"all steps", before, after, `ended of pod: CONTAINER_STOPPED_EVENT
gone of pod: CONTAINER_DELETED_EVENT
new of pod2: CONTAINER_CREATED_EVENT
new and over of pod2: CONTAINER_STOPPED_EVENT
new and running of pod2: CONTAINER_STARTED_EVENT
started of pod: CONTAINER_STARTED_EVENT
`},
		{"the first listing", nil, map[string]seen{"a": {"a", phaseRunning}}, "a of a: CONTAINER_STARTED_EVENT\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := changes(test.before, test.after)
			slices.SortFunc(got, func(a, b change) int { return cmp.Compare(a.id, b.id) })
			var text strings.Builder
			for _, c := range got {
				fmt.Fprintf(&text, "%s of %s: %s\n", c.id, c.sandbox, c.kind)
			}
			if text.String() != test.want {
				t.Errorf("got\n%swant\n%s", text.String(), test.want)
			}
		})
	}
}
