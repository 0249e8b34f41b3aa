package server

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// binding assigns a pod to a node, for schedulers that are not Knarr's own.
func (x *exchange) binding() error {
	b, opts, err := decodeSub(x, corev1.SchemeGroupVersion.WithKind("Binding"), &corev1.Binding{})
	if err != nil {
		return err
	}
	var errs field.ErrorList
	if kind := b.Target.Kind; kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(field.NewPath("target", "kind"), kind, []string{"Node"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(field.NewPath("target", "name"), ""))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), x.t.Name, errs)
	}
	if err := x.admit(admission.Create, b, opts); err != nil {
		return err
	}
	if len(opts.DryRun) == 0 {
		result := x.s.cfg.Registry.BindMany(x.r.Context(), []registry.Binding{{Pod: x.t.key(), UID: string(b.UID), Node: b.Target.Name}})
		if err := result[0].Err; err != nil {
			return err
		}
	}
	x.document(http.StatusCreated, &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}, statusKind)
	return nil
}

// decodeSub reads the object posted to a subresource and the options of its creation, and checks that it is for the object
// that the URL names.
func decodeSub[T api.Object](x *exchange, gvk groupVersionKind, into T) (obj T, opts metav1.CreateOptions, err error) {
	if err := x.parameters(&opts); err != nil {
		return obj, opts, err
	}
	if errs := metav1validation.ValidateCreateOptions(&opts); len(errs) > 0 {
		return obj, opts, apierrors.NewInvalid(metaKind("CreateOptions"), "", errs)
	}
	out, err := x.decode(gvk, into, fieldValidation(opts.FieldValidation))
	if err != nil {
		return obj, opts, err
	}
	obj = out.(T)
	if err := x.place(obj); err != nil {
		return obj, opts, err
	}
	if obj.GetName() == "" {
		obj.SetName(x.t.Name)
	}
	return obj, opts, x.named(obj)
}

// admit asks admission about something that is not a write of an object.
func (x *exchange) admit(op admission.Operation, obj api.Object, opts metav1.CreateOptions) error {
	a := &admission.Attributes{
		Operation: op, Resource: x.t.Res, Subresource: x.t.Subresource, Key: x.t.key(), Object: obj,
		Options: &opts, User: x.t.User, DryRun: len(opts.DryRun) > 0,
	}
	if err := x.s.cfg.Admission.Admit(x.r.Context(), a); err != nil {
		return err
	}
	return x.s.cfg.Admission.Validate(x.r.Context(), a)
}
