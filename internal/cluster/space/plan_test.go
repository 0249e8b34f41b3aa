package space

import (
	"strings"
	"testing"
)

func TestHowMuchMayBeWritten(t *testing.T) {
	const giga = 1 << 30
	room := Room{Free: 50 * giga, Disk: 100 * giga, Data: giga, Quota: 8 * giga, Backed: headroom, LogLeft: 60 * mega, LogSpare: true}
	for _, c := range []struct {
		name   string
		was    Level
		change func(*Room)
		want   Level
		why    string
	}{
		{"with room", Ample, func(*Room) {}, Ample, ""},
		{"with just what is kept free", Ample, func(r *Room) { r.Free = kept }, Ample, ""},
		{"with less than what is kept free", Ample, func(r *Room) { r.Free = kept - 1 }, Scarce, "255 MB left"},
		{"with a little more again", Scarce, func(r *Room) { r.Free = kept + mega }, Scarce, "from 320 MB on"},
		{"with enough again", Scarce, func(r *Room) { r.Free = kept + kept/4 }, Ample, ""},
		{"on a small disk with an eighth left", Ample, func(r *Room) { r.Disk, r.Free = 512*mega, 64*mega }, Ample, ""},
		{"on a small disk with less", Ample, func(r *Room) { r.Disk, r.Free = 512*mega, 63*mega }, Scarce, "63 MB left"},
		{"on a full disk with blocks of its own", Scarce, func(r *Room) { r.Free = 0 }, Scarce, "0 MB left"},
		{"on a full disk whose blocks are used up", Scarce, func(r *Room) { r.Free, r.Backed = 0, mega }, None, "not enough for anything"},
		{"with a log that cannot go on", Scarce, func(r *Room) { r.LogLeft, r.LogSpare = mega, false }, None, "restart this server"},
		{"with a log that begins its next file", Ample, func(r *Room) { r.LogLeft = mega }, Ample, ""},
		{"with a database at its quota", Ample, func(r *Room) { r.Data = 8*giga - giga/2 }, Scarce, "7680 MB of the 8192 MB"},
		{"with a database that is a little smaller again", Scarce, func(r *Room) { r.Data = 7*giga + 1 }, Scarce, "of the 8192 MB"},
		{"with a database that was shrunk", Scarce, func(r *Room) { r.Data = 7*giga - 1 }, Ample, ""},
		{"without a quota", Ample, func(r *Room) { r.Data, r.Quota = 20*giga, 0 }, Ample, ""},
	} {
		r := room
		c.change(&r)
		if got := Next(c.was, r); got.Level != c.want || !strings.Contains(got.Why, c.why) || (got.Why == "") != (c.want == Ample) {
			t.Errorf("%s: got %+v, want %v, %q", c.name, got, c.want, c.why)
		}
	}
}
