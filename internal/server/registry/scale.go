package registry

import (
	"context"
	"errors"
	"fmt"
	"math"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/exchanged"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
)

// ScaleOf is obj, of the version of res, as a Scale: the number of replicas in the same terms for every kind that has one.
func ScaleOf(res *api.Resource, obj api.Object) (*autoscalingv1.Scale, error) {
	spec, status, selector, err := res.Scale.Get(obj)
	if err != nil {
		return nil, err
	}
	return scaleWith(obj, spec, status, selector), nil
}

func scaleWith(obj api.Object, spec, status int32, selector string) *autoscalingv1.Scale {
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
}

// unsaid stands for the replicas of an object that does not say how many it wants, so that a patch can: no valid number.
const unsaid = math.MinInt32

// changedScale returns the present Scale and the one that change makes of it.
func changedScale(res *api.Resource, obj api.Object, change func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error)) (present, wanted *autoscalingv1.Scale, _ error) {
	spec, status, selector, err := res.Scale.Get(obj)
	var missing api.MissingReplicas
	switch {
	case errors.As(err, &missing):
		spec = unsaid
	case err != nil:
		return nil, nil, err
	}
	present = scaleWith(obj, spec, status, selector)
	wanted, err = change(present.DeepCopy())
	if err == nil && missing.Path != "" && wanted.Spec.Replicas == unsaid {
		err = apierrors.NewBadRequest(fmt.Sprintf("the spec replicas field %q cannot be empty", missing.Path))
	}
	if missing.Path != "" {
		present.Spec.Replicas = 0
	}
	return present, wanted, err
}

// UpdateScale sets the replicas that change makes of the present Scale, again when somebody wrote in between. It is a write of the object
// itself, of which admission sees the Scale.
func (r *Registry) UpdateScale(ctx context.Context, res *api.Resource, key api.Key, change func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error), opts metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	attrs := &admission.Attributes{}
	transform := func(current api.Object) (api.Object, error) {
		present, wanted, err := changedScale(res, current, change)
		if err != nil {
			return nil, err
		}
		wanted = wanted.DeepCopy() // admission changes it, and may be asked again
		*attrs = admission.Attributes{
			Operation: admission.Update, Resource: res, Subresource: "scale", Key: key, Object: wanted, Old: present,
			Options: &opts, User: request.From(ctx).User, DryRun: len(opts.DryRun) > 0,
		}
		if err := r.admission.Admit(ctx, attrs); err != nil {
			return nil, err
		}
		if errs := exchanged.Validate(wanted); len(errs) > 0 {
			return nil, apierrors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), key.Name, errs)
		}
		obj := current.DeepCopyObject().(api.Object)
		res.Scale.Set(obj, wanted.Spec.Replicas)
		obj.SetResourceVersion(wanted.ResourceVersion)
		if wanted.UID != "" {
			obj.SetUID(wanted.UID)
		}
		return obj, nil
	}
	out, _, err := r.Update(ctx, res, key, "", transform, UpdateOptions{UpdateOptions: opts, recordAs: "scale", admitted: attrs})
	if err != nil {
		return nil, err
	}
	return ScaleOf(res, out)
}
