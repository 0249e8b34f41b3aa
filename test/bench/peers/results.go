package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// results are all samples of a run, as they stand in the JSON file.
type results struct {
	Date    time.Time                       `json:"date"`
	Machine string                          `json:"machine"`
	Quick   bool                            `json:"quick,omitempty"`
	Samples map[string]map[string][]float64 `json:"samples"` // by row, then system
	Units   map[string]string               `json:"units"`
	Notes   []string                        `json:"notes,omitempty"`
	Phases  []took                          `json:"phases"`
}

// took is how long a phase was, and how much of the machine was not the bench's meanwhile.
type took struct {
	Phase   string  `json:"phase"`
	System  string  `json:"system"`
	Seconds float64 `json:"seconds"`
	Others  float64 `json:"othersPercent"`
}

func newResults(quick bool) (*results, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	r := &results{
		Date:    time.Now().UTC().Truncate(time.Second),
		Machine: fmt.Sprintf("%d cores, %d GB, Linux %s", runtime.NumCPU(), uint64(info.Totalram)*uint64(info.Unit)/1e9, unix.ByteSliceToString(u.Release[:])),
		Quick:   quick,
		Samples: map[string]map[string][]float64{},
		Units:   map[string]string{},
	}
	for _, row := range rows() {
		r.Units[row.what] = row.unit
	}
	return r, nil
}

// add keeps a sample and shows it.
func (r *results) add(system, row string, value float64) {
	if r.Samples[row] == nil {
		r.Samples[row] = map[string][]float64{}
	}
	r.Samples[row][system] = append(r.Samples[row][system], value)
	fmt.Printf("  %s: %s %s\n", row, number(value), r.Units[row])
}

// note keeps what a reader of the row must know.
func (r *results) note(system, row, text string) {
	r.Notes = append(r.Notes, fmt.Sprintf("%s, %s: %s", row, system, text))
	fmt.Printf("  note: %s\n", text)
}

func (r *results) took(phase, system string, before, after machineUse) {
	t := took{phase, system, after.at.Sub(before.at).Seconds(), 100 * others(before, after)}
	r.Phases = append(r.Phases, t)
	fmt.Printf("  (took %.0f s; others used %.0f %% of the machine)\n\n", t.Seconds, t.Others)
}

// lasted returns how long a phase took at most.
func (r *results) lasted(phase, system string) time.Duration {
	var most float64
	for _, t := range r.Phases {
		if t.Phase == phase && t.System == system {
			most = max(most, t.Seconds)
		}
	}
	return time.Duration(most * float64(time.Second))
}

func (r *results) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// read adds the samples of an earlier run on this machine.
func (r *results) read(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var earlier results
	if err := json.Unmarshal(b, &earlier); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if earlier.Machine != r.Machine || earlier.Quick != r.Quick {
		return fmt.Errorf("%s is of another machine or load (%s, quick %v): its samples mean something else", file, earlier.Machine, earlier.Quick)
	}
	for row, systems := range earlier.Samples {
		for system, values := range systems {
			if r.Samples[row] == nil {
				r.Samples[row] = map[string][]float64{}
			}
			r.Samples[row][system] = append(r.Samples[row][system], values...)
		}
	}
	r.Notes = append(r.Notes, earlier.Notes...)
	r.Phases = append(r.Phases, earlier.Phases...)
	return nil
}

// value returns the median of a row's samples, or of a quotient of rows.
func (r *results) value(row row, system string) (float64, bool) {
	if row.of == [2]string{} {
		return median(r.Samples[row.what][system])
	}
	a, ok1 := median(r.Samples[row.of[0]][system])
	b, ok2 := median(r.Samples[row.of[1]][system])
	return a / b, ok1 && ok2 && b > 0
}

func median(list []float64) (float64, bool) {
	if len(list) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, true
}

// table returns the rows that have samples as a table in Markdown: the medians, and how many times better Knarr is.
func (r *results) table() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s; medians; others used %s of the machine meanwhile.\n\n", r.Date.Format(time.DateTime+" UTC"), r.Machine, r.others())
	out.WriteString("| measure | Kubernetes | Knarr | better by | Knarr, nodes by kwok | better by | goal |\n|---|---|---|---|---|---|---|\n")
	for _, row := range rows() {
		base, compared := r.value(row, kubernetes)
		measured := compared
		cells := []string{row.what, r.cell(row, kubernetes)}
		for _, system := range []string{knarr, knarrKwok} {
			v, ok := r.value(row, system)
			better := ""
			if ok && compared && row.most == 0 {
				better = ratio(base, v, row.less)
			}
			measured = measured || ok
			cells = append(cells, r.cell(row, system), better)
		}
		if !measured {
			continue
		}
		fmt.Fprintf(&out, "| %s | %s |\n", strings.Join(cells, " | "), row.aim())
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&out, "\n- %s", n)
	}
	return out.String() + "\n"
}

// others returns the range of what others used of the machine, over the phases.
func (r *results) others() string {
	var shares []float64
	for _, t := range r.Phases {
		shares = append(shares, t.Others)
	}
	if len(shares) == 0 {
		return "an unknown part"
	}
	return fmt.Sprintf("%.0f-%.0f %%", slices.Min(shares), slices.Max(shares))
}

func (r *results) cell(row row, system string) string {
	v, ok := r.value(row, system)
	if !ok {
		return ""
	}
	return number(v) + " " + row.unit
}

func (row row) aim() string {
	switch {
	case row.goal > 0:
		return fmt.Sprintf(">= %.0fx", row.goal)
	case row.most > 0:
		return fmt.Sprintf("<= %.1fx", row.most)
	}
	return ""
}

// ratio says how many times better v is than the peer's.
func ratio(peer, v float64, less bool) string {
	if less {
		peer, v = v, peer
	}
	if peer == 0 {
		return ""
	}
	return number(v/peer) + "x"
}

// number writes a figure with as many digits as mean something.
func number(v float64) string {
	switch {
	case v >= 1000:
		s := fmt.Sprintf("%.0f", v)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
