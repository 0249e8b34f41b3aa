package fair

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"text/tabwriter"
)

// Dumps are what /debug/api_priority_and_fairness/NAME shows, by name: the columns that kube-apiserver shows
// (https://kubernetes.io/docs/reference/debug-cluster/flow-control/).
func (f *Fairness) Dumps() map[string]http.Handler {
	dump := func(heads []any, rows func(l *level, row func(cells ...any))) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			out := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
			row := func(cells ...any) { writeRow(out, cells) }
			row(heads...)
			f.current()
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, name := range slices.Sorted(maps.Keys(f.levels)) {
				rows(f.levels[name], row)
			}
			_ = out.Flush() // the client may be gone
		})
	}
	return map[string]http.Handler{
		"dump_priority_levels": dump([]any{"PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
			"DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests"}, f.dumpLevel),
		"dump_queues": dump([]any{"PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
			"InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum"}, dumpQueues),
	}
}

func writeRow(to io.Writer, cells []any) {
	for i, c := range cells {
		if i > 0 {
			_, _ = io.WriteString(to, ",\t")
		}
		_, _ = fmt.Fprint(to, c)
	}
	_, _ = io.WriteString(to, "\n")
}

func (f *Fairness) dumpLevel(l *level, row func(cells ...any)) {
	a := f.arranged.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.queue
	_, stays := a.levels[l.name]
	row(l.name, q.Busy(), q.Idle(), !stays, q.Waiting, q.Executing, q.Dispatched, q.Rejected, 0, q.Left)
}

func dumpQueues(l *level, row func(cells ...any)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queue.Queues() {
		row(l.name, q.Index, q.Waiting, q.Executing, q.SeatsInUse, seatSeconds(q.Due), q.SeatsWaiting, q.SeatsWaiting, seatSeconds(q.Work))
	}
}

func seatSeconds(s float64) string { return fmt.Sprintf("%.8fss", s) }
