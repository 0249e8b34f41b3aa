package placement

import (
	"slices"
	"testing"
)

func TestEveryFilterIsComplete(t *testing.T) {
	var all FilterSet
	for _, f := range filters() {
		if f.Name == "" || f.Next == "" || f.Helps == 0 {
			t.Errorf("%+v lacks a name, a next step, or the events that may help", f)
		}
		looks := 0
		for _, is := range []bool{f.pod != nil, f.node != nil, f.room != nil && f.words != nil, f.domains != nil} {
			if is {
				looks++
			}
		}
		want := 1
		if slices.Contains(needFilters[:], f) { // package volumes looks, in their name
			want = 0
		}
		if looks != want {
			t.Errorf("%s looks at %d of the four things", f.Name, looks)
		}
		if setOf(f).String() != f.Name {
			t.Errorf("the set of %s is %s", f.Name, setOf(f))
		}
		all |= setOf(f)
	}
	if got := HelpedBy(^Events(0)); got != all {
		t.Errorf("all events help %s, want %s", got, all)
	}
	if got := HelpedBy(ClaimChanged).String(); got != "VolumeBinding,VolumeRestrictions,NodeVolumeLimits,VolumeZone" {
		t.Errorf("claims help %s", got)
	}
}
