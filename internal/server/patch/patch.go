// Package patch changes objects as the four kinds of patch ask: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge
// patch, and server-side apply with the record of who manages which field.
//
// What flows through it: [Apply] turns the JSON of an object and a patch into the JSON of the changed object;
// [Managers] merges applied configurations and keeps metadata.managedFields. What must stay true: both are pure - the object
// given is not changed - and every error is the API status to answer with. Tests: TestApply, TestStatusBelongsToItsOwner.
package patch

import (
	"encoding/json"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	kjson "sigs.k8s.io/json"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// Apply returns the JSON document original changed by a patch of one of the first three kinds. typ is an empty object of
// the document's Go type, which tells the strategic merge keys. duplicates are the patch's own mistakes that are worth a
// warning or, where the client wants strictness, a refusal.
func Apply(kind types.PatchType, original, patch []byte, typ runtime.Object) (patched []byte, duplicates []error, err error) {
	if err := wire.StandardBounds().JSON(patch); err != nil {
		return nil, nil, err
	}
	switch kind {
	case types.JSONPatchType:
		patched, err = applyJSONPatch(original, patch, standardLimits())
		return patched, duplicateKeys(patch, &[]any{}), err
	case types.MergePatchType:
		patched, err = applyMergePatch(original, patch)
		return patched, duplicateKeys(patch, &map[string]any{}), err
	case types.StrategicMergePatchType:
		patched, err = applyStrategic(original, patch, typ, maxComparisons)
		return patched, duplicateKeys(patch, &map[string]any{}), err
	}
	return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("patch type %s is not one that changes a document", kind))
}

// malformed says what is wrong with a patch that is no JSON.
func malformed(patch []byte) error {
	var v any
	if err := json.Unmarshal(patch, &v); err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("the patch is not valid JSON: %v", err))
	}
	return apierrors.NewBadRequest("the patch must be a JSON object")
}

// unprocessable is the answer to a patch that is well formed but does not fit the object.
func unprocessable(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: "the patch does not fit the object: " + err.Error(),
	}}
}

// duplicateKeys returns what strict reading of the patch itself finds wrong.
func duplicateKeys(patch []byte, into any) []error {
	strict, err := kjson.UnmarshalStrict(patch, into)
	if err != nil {
		return nil // said already, by whoever applied it
	}
	return strict
}
