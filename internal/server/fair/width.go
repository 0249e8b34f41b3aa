package fair

import (
	"math"
	"net/url"
	"strconv"

	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/request"
)

const (
	// bytesPerSeat is how much a list of one seat holds at most, as kube-apiserver counts (SizeBasedListCostEstimate).
	bytesPerSeat = 100_000
	// listMost bounds the width of a list.
	listMost = 100
)

// Sizes tell how much a list goes through.
type Sizes interface {
	// Mean returns how large the objects of a resource are, on average, in bytes; 0 where this server has none.
	Mean(of *request.Info) float64
	// Count returns how many objects of a resource there are in the namespace of a request, or in all; it need not count beyond most.
	Count(of *request.Info, most int) int
}

// Width is how many seats a request takes: one, and one for every 100 kB of objects that a list goes through, or the beginning of a
// watch that begins with what there is. most bounds it.
func Width(of *request.Info, query url.Values, sizes Sizes, most int) int {
	if !of.IsResource || of.Name != "" || of.Verb != "list" && (of.Verb != "watch" || !initial(query)) {
		return 1
	}
	most = min(most, listMost)
	mean := sizes.Mean(of)
	if mean == 0 || most <= 1 {
		return 1
	}
	enough := int(math.Ceil(float64(most) * bytesPerSeat / mean))
	objects := sizes.Count(of, enough)
	if limit, err := strconv.Atoi(query.Get("limit")); err == nil && limit > 0 {
		objects = min(objects, limit)
	}
	seats := int(math.Ceil(float64(objects) * mean / bytesPerSeat))
	if seats > 1 && few(of, query) {
		return 1
	}
	return max(min(seats, most), 1)
}

// initial reports whether a watch begins with the objects that there are.
func initial(query url.Values) bool {
	if v, ok := query["sendInitialEvents"]; ok {
		return call.Truth(v[0])
	}
	version := query.Get("resourceVersion")
	return version == "" || version == "0"
}

// few reports whether a field selector is answered from an index: by an object's name, or a pod's node.
func few(of *request.Info, query url.Values) bool {
	selector := query.Get("fieldSelector")
	if selector == "" {
		return false
	}
	sel, err := fields.ParseSelector(selector)
	if err != nil {
		return false
	}
	_, named := sel.RequiresExactMatch("metadata.name")
	_, node := sel.RequiresExactMatch("spec.nodeName")
	return named || node && of.Resource == "pods"
}
