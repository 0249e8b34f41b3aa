package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		list []float64
		want float64
		ok   bool
	}{
		{nil, 0, false},
		{[]float64{3}, 3, true},
		{[]float64{4, 1}, 2.5, true},
		{[]float64{9, 1, 2}, 2, true},
	} {
		if got, ok := median(c.list); got != c.want || ok != c.ok {
			t.Errorf("median(%v) = %v, %v; want %v, %v", c.list, got, ok, c.want, c.ok)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		peer, v float64
		less    bool
		want    string
	}{
		{60, 1200, false, "20.0x"},
		{500, 80, true, "6.25x"},
		{80, 100, true, "0.80x"},
		{100, 0, true, ""},
		{0, 5, false, ""},
	} {
		if got := ratio(c.peer, c.v, c.less); got != c.want {
			t.Errorf("ratio(%v, %v, less %v) = %q, want %q", c.peer, c.v, c.less, got, c.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.37: "0.37", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", 1234567: "1,234,567", 999999: "999,999"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	r, err := newResults(false)
	if err != nil {
		t.Fatal(err)
	}
	for system, values := range map[string][]float64{kubernetes: {520, 480}, knarr: {100}} {
		for _, v := range values {
			r.add(system, rowEmptyRSS, v)
		}
	}
	for row, values := range map[string][2]float64{podRows100.cpu: {20, 0.5}, podRows1000.cpu: {40, 0.6}} {
		r.add(kubernetes, row, values[0])
		r.add(knarr, row, values[1])
	}
	r.add(knarrKwok, podRows1000.rate, 700) // the peer was not measured: nothing to compare with
	r.note(kubernetes, podRows1000.rate, "was not measured")
	r.Phases = []took{{Others: 12.4}, {Others: 3}}
	got := r.table()
	for _, want := range []string{
		"; medians; others used 3-12 % of the machine meanwhile.\n",
		"| RSS, nothing in it | 500 MB | 100 MB | 5.00x |  |  | >= 4x |\n",
		"| the CPU for a pod, 1,000 nodes to 100 | 2.00 x | 1.20 x |  |  |  | <= 1.5x |\n",
		"| 20 x 500 pods to Ready, 1,000 nodes |  |  |  | 700 pods/s |  | >= 10x |\n",
		"\n- 20 x 500 pods to Ready, 1,000 nodes, kubernetes: was not measured",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table has no %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, rowStart) {
		t.Errorf("the table has a row without a figure:\n%s", got)
	}
}

// Every row that a phase adds must be in the table, else its figures are never seen.
func TestEveryRowIsInTheTable(t *testing.T) {
	known := map[string]bool{}
	for _, row := range rows() {
		if known[row.what] {
			t.Errorf("row %q stands twice", row.what)
		}
		known[row.what] = true
		if row.goal > 0 && row.most > 0 {
			t.Errorf("row %q has two goals", row.what)
		}
	}
	for _, p := range []podRows{podRows100, podRows1000} {
		for _, what := range []string{p.rate, p.cpu, p.kwok, p.memory, p.anonymous, p.idle} {
			if !known[what] {
				t.Errorf("row %q of %s is not in the table", what, p.name)
			}
		}
	}
}

func TestOnlyWhatFitsIsRepeated(t *testing.T) {
	b := &bench{results: &results{Phases: []took{{Phase: "start", System: knarr, Seconds: 1}, {Phase: "plane", System: knarr, Seconds: 7200}}}}
	if !b.fits("plane", knarr) {
		t.Error("without a budget everything is repeated")
	}
	b.until = time.Now().Add(time.Hour)
	if !b.fits("start", knarr) {
		t.Error("a second fits into an hour")
	}
	if b.fits("plane", knarr) {
		t.Error("two hours do not fit into one")
	}
}

func TestTheTableOfADocumentIsReplaced(t *testing.T) {
	got, err := replaceTable("before\n"+tableBegin+"\n| old |\n\n"+tableEnd+"after\n", "| new |\n")
	if want := "before\n" + tableBegin + "\n| new |\n\n" + tableEnd + "after\n"; got != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := replaceTable("no marks", "| new |\n"); err == nil {
		t.Error("a document without marks was taken")
	}
}

func TestEarlierSamplesCount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "earlier.json")
	earlier, err1 := newResults(false)
	now, err2 := newResults(false)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	earlier.add(knarr, rowStart, 300)
	earlier.Phases = []took{{Phase: "start", System: knarr, Others: 7}}
	if err := earlier.write(file); err != nil {
		t.Fatal(err)
	}
	now.add(knarr, rowStart, 500)
	if err := now.read(file); err != nil {
		t.Fatal(err)
	}
	if got := now.table(); !strings.Contains(got, "| 400 ms |") || !strings.Contains(got, "others used 7-7 %") {
		t.Errorf("the earlier sample does not count:\n%s", got)
	}
	now.Quick = true
	if err := now.read(file); err == nil {
		t.Error("samples of another load were taken")
	}
}
