package verbs

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
)

// binding assigns a pod to a node, for schedulers that are not Knarr's own.
func (v *Verbs) binding(c *call.Call) error {
	b, opts, err := decodeSub(c, corev1.SchemeGroupVersion.WithKind("Binding"), &corev1.Binding{})
	if err != nil {
		return err
	}
	if _, err := v.cfg.Registry.Bind(c.R.Context(), b, opts); err != nil {
		return err
	}
	c.Document(http.StatusCreated, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}, call.StatusKind)
	return nil
}

// decodeSub reads the object posted to a subresource and the options of its creation, and checks that it is for the object
// that the URL names.
func decodeSub[T api.Object](c *call.Call, gvk schema.GroupVersionKind, into T) (obj T, opts metav1.CreateOptions, err error) {
	if err := c.Parameters(&opts); err != nil {
		return obj, opts, err
	}
	if errs := metav1validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return obj, opts, apierrors.NewInvalid(metaKind("CreateOptions"), "", errs)
	}
	out, err := c.Decode(gvk, into, call.FieldValidation(opts.FieldValidation))
	if err != nil {
		return obj, opts, err
	}
	obj = out.(T)
	if err := place(c, obj); err != nil {
		return obj, opts, err
	}
	if obj.GetName() == "" {
		obj.SetName(c.Target.Name)
	}
	return obj, opts, named(c, obj)
}
