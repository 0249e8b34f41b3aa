package job

import (
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// noIndex is the completion index of a pod that has none, or none that counts.
const noIndex = -1

// indexOf returns the completion index of a pod of a job with so many completions.
func indexOf(pod *corev1.Pod, completions int) int {
	i, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || i < 0 || i >= completions {
		return noIndex
	}
	return i
}

// span is the indexes from first to last.
type span struct{ first, last int }

// indexes is a set of completion indexes: spans in order that do not touch one another.
type indexes []span

// parseIndexes reads the form in which a Job's status and success policy name indexes, "1,3-5,7", up to completions. What cannot be
// read is left out.
func parseIndexes(text string, completions int) indexes {
	var out indexes
	for part := range strings.SplitSeq(text, ",") {
		from, to, both := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil || first < 0 || first >= completions {
			continue
		}
		last := first
		if both {
			if last, err = strconv.Atoi(to); err != nil || last < first {
				continue
			}
		}
		out = append(out, span{first, min(last, completions-1)})
	}
	return out.normal()
}

// indexSet returns the set of some indexes.
func indexSet(some []int) indexes {
	out := make(indexes, len(some))
	for i, n := range some {
		out[i] = span{n, n}
	}
	return out.normal()
}

// normal sorts spans and joins those that touch.
func (s indexes) normal() indexes {
	slices.SortFunc(s, func(a, b span) int { return a.first - b.first })
	out := s[:0]
	for _, next := range s {
		if n := len(out); n > 0 && next.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, next.last)
			continue
		}
		out = append(out, next)
	}
	return slices.Clip(out)
}

// union returns all indexes of s and others.
func (s indexes) union(others ...indexes) indexes {
	return slices.Concat(append([]indexes{s}, others...)...).normal()
}

// total returns how many indexes there are.
func (s indexes) total() (n int) {
	for _, p := range s {
		n += p.last - p.first + 1
	}
	return n
}

// common returns how many indexes are in both sets.
func (s indexes) common(other indexes) (n int) {
	for i, j := 0, 0; i < len(s) && j < len(other); {
		n += max(0, min(s[i].last, other[j].last)-max(s[i].first, other[j].first)+1)
		if s[i].last < other[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// has reports whether n is in the set.
func (s indexes) has(n int) bool {
	i, ok := slices.BinarySearchFunc(s, n, func(p span, n int) int {
		switch {
		case p.last < n:
			return -1
		case p.first > n:
			return 1
		}
		return 0
	})
	return ok && s[i].first <= n
}

// missing returns the first n indexes below completions that are not in the set.
func (s indexes) missing(n, completions int) []int {
	var out []int
	next := 0
	for _, p := range append(slices.Clone(s), span{completions, completions}) {
		for ; next < min(p.first, completions) && len(out) < n; next++ {
			out = append(out, next)
		}
		next = max(next, p.last+1)
	}
	return out
}

// String writes the set as it stands in the status: two neighbours are named both, more than two as a span.
func (s indexes) String() string {
	var out []string
	for _, p := range s {
		switch p.last - p.first {
		case 0:
			out = append(out, strconv.Itoa(p.first))
		case 1:
			out = append(out, strconv.Itoa(p.first), strconv.Itoa(p.last))
		default:
			out = append(out, strconv.Itoa(p.first)+"-"+strconv.Itoa(p.last))
		}
	}
	return strings.Join(out, ",")
}
