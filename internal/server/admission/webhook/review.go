package webhook

import (
	"encoding/json"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/wire"
)

const reviewKind = "AdmissionReview"

// review returns the AdmissionReview that asks a webhook about the write. v1beta1 has the same fields as v1.
func (w *write) review(v *version, apiVersion string) (*admissionv1.AdmissionReview, error) {
	dryRun := w.a.DryRun
	options, err := optionsOf(w.a.Options)
	if err != nil {
		return nil, err
	}
	kind, resource := metav1.GroupVersionKind(w.request.Kind), metav1.GroupVersionResource(w.request.Resource)
	return &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: admissionv1.GroupName + "/" + apiVersion, Kind: reviewKind},
		Request: &admissionv1.AdmissionRequest{
			UID:  uuid.NewUUID(),
			Kind: metav1.GroupVersionKind(v.target.Kind), Resource: metav1.GroupVersionResource(v.target.Resource), SubResource: w.request.Subresource,
			RequestKind: &kind, RequestResource: &resource, RequestSubResource: w.request.Subresource,
			Name: w.a.Key.Name, Namespace: w.request.Namespace, Operation: admissionv1.Operation(w.a.Operation),
			UserInfo: userInfo(w.a.User), Object: runtime.RawExtension{Raw: v.json}, OldObject: runtime.RawExtension{Raw: v.oldJSON},
			DryRun: &dryRun, Options: runtime.RawExtension{Raw: options},
		},
	}, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	if u == nil {
		return authenticationv1.UserInfo{}
	}
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: map[string]authenticationv1.ExtraValue{}}
	for k, v := range u.GetExtra() {
		info.Extra[k] = authenticationv1.ExtraValue(v)
	}
	return info
}

// optionsOf returns the JSON of a request's options; nothing for a connection, which has none.
func optionsOf(options runtime.Object) ([]byte, error) {
	kind := ""
	switch options.(type) {
	case nil:
		return nil, nil
	case *metav1.CreateOptions:
		kind = "CreateOptions"
	case *metav1.UpdateOptions:
		kind = "UpdateOptions"
	case *metav1.DeleteOptions:
		kind = "DeleteOptions"
	default:
		return nil, fmt.Errorf("could not create admission objects: options of type %T", options)
	}
	return wire.Item(options, metav1.SchemeGroupVersion.WithKind(kind), wire.JSON)
}

// verify returns why an answer is none, if it is not.
func verify(asked, answer *admissionv1.AdmissionReview, mutating bool) error {
	r := answer.Response
	if r == nil {
		return errors.New("webhook response was absent")
	}
	if asked.APIVersion != admissionv1.SchemeGroupVersion.String() { // v1beta1 asked for nothing of what follows
		if len(r.Patch) > 0 && mutating {
			t := admissionv1.PatchTypeJSONPatch
			r.PatchType = &t
		} else {
			r.Patch, r.PatchType = nil, nil
		}
		return nil
	}
	switch {
	case r.UID != asked.Request.UID:
		return fmt.Errorf("expected response.uid=%q, got %q", asked.Request.UID, r.UID)
	case answer.GroupVersionKind() != asked.GroupVersionKind():
		return fmt.Errorf("expected webhook response of %v, got %v", asked.GroupVersionKind(), answer.GroupVersionKind())
	case !mutating && len(r.Patch) > 0:
		return errors.New("validating webhook may not return response.patch")
	case !mutating && r.PatchType != nil:
		return errors.New("validating webhook may not return response.patchType")
	case len(r.Patch) > 0 && r.PatchType == nil:
		return errors.New("webhook returned response.patch but not response.patchType")
	case len(r.Patch) == 0 && r.PatchType != nil:
		return errors.New("webhook returned response.patchType but not response.patch")
	case r.PatchType != nil && *r.PatchType == "":
		return errors.New(`webhook returned invalid response.patchType of ""`)
	}
	return nil
}

// operations returns how many operations a JSON patch has.
func operations(patch []byte) (int, error) {
	var ops []map[string]json.RawMessage
	err := json.Unmarshal(patch, &ops)
	return len(ops), err
}
