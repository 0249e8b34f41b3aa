package exchanged

import (
	"reflect"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestValidateChangesNothing(t *testing.T) {
	ten, minus := int64(10), int64(-1)
	for _, tc := range []struct {
		obj   runtime.Object
		wrong string // the field, or empty
	}{
		{&corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, ""},
		{&corev1.Binding{Target: corev1.ObjectReference{Kind: "Frog", Name: "n"}}, "target.kind"},
		{&corev1.PodLogOptions{TailLines: &ten}, ""},
		{&corev1.PodLogOptions{TailLines: &minus}, "tailLines"},
		{&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &ten}}, "spec.expirationSeconds"},
		{&autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: -1}}, "spec.replicas"},
		{&authorizationv1.SelfSubjectAccessReview{}, "spec"},
	} {
		before := tc.obj.DeepCopyObject()
		errs := Validate(tc.obj)
		if tc.wrong == "" && len(errs) > 0 || tc.wrong != "" && (len(errs) == 0 || errs[0].Field != tc.wrong) {
			t.Errorf("%T: %v, want an error of %q", tc.obj, errs, tc.wrong)
		}
		if !reflect.DeepEqual(before, tc.obj) {
			t.Errorf("%T was changed", tc.obj)
		}
	}
}
