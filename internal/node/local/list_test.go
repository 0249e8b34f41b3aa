package local

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
)

func TestVolumesAreListedWithWhatIsKnownOfThem(t *testing.T) {
	k := &Keeper{Store: &Store{Dir: filepath.Join(t.TempDir(), "volumes")}, Log: slog.New(slog.DiscardHandler)}
	measure := func(_ context.Context, dir string) uint64 { return uint64(len(filepath.Base(dir))) }
	if list, err := k.Listed(t.Context(), measure); len(list) != 0 || err != nil {
		t.Errorf("%+v %v", list, err)
	}
	for _, handle := range []string{"pvc-22", "pvc-1"} {
		if _, err := k.Store.Ensure(t.Context(), volume(handle)); err != nil {
			t.Fatal(err)
		}
	}
	about := About{Volume: "pvc-1", Namespace: "default", Claim: "data", Bytes: 16 << 20}
	other := about
	other.Volume = "pvc-22"
	for _, tc := range []struct {
		known  map[string]bool
		orphan bool
	}{
		{nil, false}, // nobody has looked yet
		{map[string]bool{"pvc-1": true}, true},
		{map[string]bool{"pvc-1": true, "pvc-22": true}, false},
	} {
		k.known = tc.known
		list, err := k.Listed(t.Context(), measure)
		want := []Listed{{Handle: "pvc-1", About: about, Used: 5}, {Handle: "pvc-22", About: other, Used: 6, Orphan: tc.orphan}}
		if err != nil || !slices.EqualFunc(list, want, func(a, b Listed) bool {
			return a.Handle == b.Handle && a.About == b.About && a.Used == b.Used && a.Orphan == b.Orphan
		}) {
			t.Errorf("known %v: %+v %v", tc.known, list, err)
		}
	}
}
