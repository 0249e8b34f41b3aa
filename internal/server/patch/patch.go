// Package patch changes objects as the four kinds of patch ask: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge
// patch, and server-side apply with the record of who manages which field.
//
// What flows through it: [Apply] turns the JSON of an object and a patch into the JSON of the changed object;
// [Managers] merges applied configurations and keeps metadata.managedFields. What must stay true: both are pure - the object
// given is not changed - and every error is the API status to answer with.
package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
)

// maxOperations bounds a JSON patch, since each operation may copy the document.
const maxOperations = 10000

// Apply returns the JSON document original changed by a patch of one of the first three kinds. typ is an empty object of
// the document's Go type, which tells the strategic merge keys. duplicates are the patch's own mistakes that are worth a
// warning or, where the client wants strictness, a refusal.
func Apply(kind types.PatchType, original, patch []byte, typ runtime.Object) (patched []byte, duplicates []error, err error) {
	switch kind {
	case types.JSONPatchType:
		patched, err = applyJSONPatch(original, patch)
		return patched, duplicateKeys(patch, &[]any{}), err
	case types.MergePatchType:
		if !json.Valid(patch) {
			return nil, nil, malformed(patch)
		}
		patched, err = jsonpatch.MergePatch(original, patch)
		if err != nil {
			return nil, nil, apierrors.NewBadRequest(err.Error())
		}
		return patched, duplicateKeys(patch, &map[string]any{}), nil
	case types.StrategicMergePatchType:
		patched, err = applyStrategic(original, patch, typ)
		return patched, duplicateKeys(patch, &map[string]any{}), err
	}
	return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("patch type %s is not one that changes a document", kind))
}

func applyJSONPatch(original, patch []byte) ([]byte, error) {
	ops, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if len(ops) > maxOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(ops)))
	}
	patched, err := ops.Apply(original)
	if err != nil {
		return nil, unprocessable(err)
	}
	return patched, nil
}

func applyStrategic(original, patch []byte, typ runtime.Object) ([]byte, error) {
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
