package report

import (
	"slices"
	"testing"

	"k8s.io/component-helpers/nodedeclaredfeatures/features"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
)

// A name that nobody knows would be declared in vain, and the API wants the list sorted.
func TestDeclaredFeaturesAreKnownAndSorted(t *testing.T) {
	got := declaredFeatures()
	if !slices.IsSorted(got) {
		t.Errorf("%v is not sorted", got)
	}
	for _, name := range got {
		if !slices.ContainsFunc(features.AllFeatures, func(f types.Feature) bool { return f.Name() == name }) {
			t.Errorf("no feature is called %s", name)
		}
	}
}
