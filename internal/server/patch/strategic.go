package patch

import (
	"bytes"
	"encoding/json"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// maxComparisons bounds how often a strategic merge patch looks at a pair of elements: upstream's merge of two lists by their key takes
// the product of their lengths, some 200 ns each time. This much is a list of four thousand that is patched as a whole.
const maxComparisons = 1 << 24

func applyStrategic(original, patch []byte, typ runtime.Object, comparisons int) ([]byte, error) {
	if tooMany(original, patch, comparisons) {
		return nil, apierrors.NewRequestEntityTooLargeError("the strategic merge patch has too many elements of lists for the length of the lists: send it in parts, or as server-side apply")
	}
	patched, err := strategicpatch.StrategicMergePatch(original, patch, typ)
	switch {
	case err == nil:
		return patched, nil
	case errors.Is(err, mergepatch.ErrBadJSONDoc):
		return nil, malformed(patch)
	case errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList), errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys),
		errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList), errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	case mergepatch.IsConflict(err):
		return nil, apierrors.NewConflict(schema.GroupResource{}, "", err)
	}
	return nil, unprocessable(err)
}

// tooMany reports whether merging may compare more than that many pairs: each element of a list in the patch with each of the longest list.
func tooMany(original, patch []byte, comparisons int) bool {
	commas := func(b []byte) int { return bytes.Count(b, []byte{','}) + 1 } // a list has no more elements than its text has commas, and one
	if p := commas(patch); p*(commas(original)+p) <= comparisons {
		return false
	}
	var have, wanted any
	if json.Unmarshal(original, &have) != nil || json.Unmarshal(patch, &wanted) != nil {
		return false // the merge says what is wrong
	}
	_, longest := elements(have)
	count, longestWanted := elements(wanted)
	return count*(longest+longestWanted) > comparisons
}

// elements returns how many elements the lists within v have in all, and how many the longest has.
func elements(v any) (count, longest int) {
	add := func(child any) {
		c, l := elements(child)
		count, longest = count+c, max(longest, l)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, child := range v {
			add(child)
		}
	case []any:
		count, longest = len(v), len(v)
		for _, child := range v {
			add(child)
		}
	}
	return count, longest
}
