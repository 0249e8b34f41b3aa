package history

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Resumed returns how long after the mark the first write was acknowledged of those that were begun when it was in effect.
func (h *History) Resumed(m Mark) (time.Duration, bool) { return resumed(h.Ops, m) }

// LongestGap returns the longest time between two acknowledgements of writes that follow each other, and when it began.
func (h *History) LongestGap() (longest, at time.Duration) {
	last := time.Duration(-1)
	for _, o := range h.Ops {
		if !o.Kind.writes() || o.Outcome != Done {
			continue
		}
		if last >= 0 && o.Return-last > longest {
			longest, at = o.Return-last, last
		}
		last = o.Return
	}
	return longest, at
}

// Report tells in words what happened.
func Report(h *History) string {
	var b strings.Builder
	var length time.Duration
	counts := map[Kind]map[Outcome]int{}
	acked, trouble := map[string]int{}, map[string]int{}
	for _, o := range h.Ops {
		length = max(length, o.Return)
		if counts[o.Kind] == nil {
			counts[o.Kind] = map[Outcome]int{}
		}
		counts[o.Kind][o.Outcome]++
		switch {
		case o.Outcome == Unknown || o.Outcome == NotSent:
			trouble[o.Server+": "+shorten(o.Reason)]++
		case o.Kind.writes() && o.Outcome == Done:
			acked[o.Server]++
		}
	}
	fmt.Fprintf(&b, "%d operations in %v\n", len(h.Ops), length.Round(time.Millisecond))
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		c := counts[k]
		fmt.Fprintf(&b, "  %-6s %6d done, %5d refused, %4d not sent, %4d unknown\n", k, c[Done], c[Refused], c[NotSent], c[Unknown])
	}
	for _, s := range slices.Sorted(maps.Keys(acked)) {
		fmt.Fprintf(&b, "  writes acknowledged by %s: %d\n", s, acked[s])
	}
	for _, f := range h.Followers {
		connections, lists := 0, 0
		for _, e := range f.Events {
			switch e.Type {
			case Connected:
				connections++
			case Replaced:
				lists++
			}
		}
		fmt.Fprintf(&b, "  %s: %d events over %d connections, %d lists\n", f.Name, len(f.Events)-connections-lists, connections, lists)
	}
	gap, at := h.LongestGap()
	fmt.Fprintf(&b, "  longest time without an acknowledged write: %v, from %v on\n", gap.Round(time.Millisecond), at.Round(time.Millisecond))
	for _, m := range h.Marks {
		after := "no write was acknowledged afterwards"
		if d, ok := h.Resumed(m); ok {
			after = fmt.Sprintf("the next write acknowledged after %v", d.Round(time.Millisecond))
		}
		fmt.Fprintf(&b, "  %v %s: %s\n", m.At.Round(time.Millisecond), m.Name, after)
	}
	for _, reason := range slices.SortedFunc(maps.Keys(trouble), func(a, b string) int { return trouble[b] - trouble[a] })[:min(8, len(trouble))] {
		fmt.Fprintf(&b, "  %d times %s\n", trouble[reason], reason)
	}
	return b.String()
}

// shorten leaves out what differs between errors of one kind: addresses, ports and names.
func shorten(reason string) string {
	if i := strings.LastIndex(reason, "/configmaps"); i >= 0 { // Put "https://10.0.0.1:6443/api/...": connection refused
		if _, rest, ok := strings.Cut(reason[i:], "\": "); ok {
			reason = rest
		}
	}
	words := strings.Fields(reason)
	for i, w := range words {
		if strings.ContainsAny(w, "0123456789") && len(w) > 3 {
			words[i] = "…"
		}
	}
	return strings.Join(words, " ")
}
