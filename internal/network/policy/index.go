package policy

import "k8s.io/apimachinery/pkg/labels"

// index finds what may choose a pod by what choices demand: a namespace, and one label, where they name one with its value. So a pod is
// compared with few of them, however many there are.
type index[T comparable] map[place]map[T]struct{}

// place is where a choice is found. An empty namespace is every namespace, an empty term no label.
type place struct{ namespace, term string }

// termOf returns a label and value that all pods have which sel chooses, or "".
func termOf(sel labels.Selector) string {
	requirements, _ := sel.Requirements()
	for _, r := range requirements {
		if values := r.Values(); (r.Operator() == "=" || r.Operator() == "==" || r.Operator() == "in") && values.Len() == 1 {
			return r.Key() + "=" + values.UnsortedList()[0]
		}
	}
	return ""
}

func (x index[T]) add(at place, what T) {
	if x[at] == nil {
		x[at] = map[T]struct{}{}
	}
	x[at][what] = struct{}{}
}

func (x index[T]) remove(at place, what T) {
	delete(x[at], what)
	if len(x[at]) == 0 {
		delete(x, at)
	}
}

// candidates calls visit with everything that may choose a pod of these labels, each once.
func (x index[T]) candidates(namespace string, set map[string]string, visit func(T)) {
	for _, ns := range []string{namespace, ""} {
		for what := range x[place{ns, ""}] {
			visit(what)
		}
		for k, v := range set {
			for what := range x[place{ns, k + "=" + v}] {
				visit(what)
			}
		}
	}
}
