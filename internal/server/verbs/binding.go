package verbs

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// binding assigns a pod to a node, for schedulers that are not Knarr's own.
func (v *Verbs) binding(c *call.Call) error {
	b, opts, err := decodeSub(c, corev1.SchemeGroupVersion.WithKind("Binding"), &corev1.Binding{})
	if err != nil {
		return err
	}
	if errs := api.ValidateExchanged(b); len(errs) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), c.Target.Name, errs)
	}
	if err := v.admit(c, admission.Create, b, opts); err != nil {
		return err
	}
	if len(opts.DryRun) == 0 {
		result := v.cfg.Registry.BindMany(c.R.Context(), []registry.Binding{{Pod: c.Target.Key(), UID: string(b.UID), Node: b.Target.Name}})
		if err := result[0].Err; err != nil {
			return err
		}
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

// admit asks admission about something that is not a write of an object.
func (v *Verbs) admit(c *call.Call, op admission.Operation, obj api.Object, opts metav1.CreateOptions) error {
	a := &admission.Attributes{
		Operation: op, Resource: c.Target.Res, Subresource: c.Target.Subresource, Key: c.Target.Key(), Object: obj,
		Options: &opts, User: c.Target.User, DryRun: len(opts.DryRun) > 0,
	}
	if err := v.cfg.Admission.Admit(c.R.Context(), a); err != nil {
		return err
	}
	return v.cfg.Admission.Validate(c.R.Context(), a)
}
