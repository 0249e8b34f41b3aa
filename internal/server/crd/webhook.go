package crd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimachineryvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-io/knarr/internal/server/hook"
	"github.com/knarr-io/knarr/internal/store"
)

// conversionLimit is how long a conversion webhook may take.
const conversionLimit = 30 * time.Second

// Webhooks returns the Converters of definitions whose strategy is Webhook: those find Services in s.
func Webhooks(s *store.Store) func(def *apiextensionsv1.CustomResourceDefinition) Converter {
	return func(def *apiextensionsv1.CustomResourceDefinition) Converter {
		conv := def.Spec.Conversion
		if conv == nil || conv.Strategy != apiextensionsv1.WebhookConverter || conv.Webhook == nil || conv.Webhook.ClientConfig == nil {
			return nil
		}
		config := conv.Webhook.ClientConfig
		target := hook.Target{CA: config.CABundle}
		if config.URL != nil {
			target.URL = *config.URL
		}
		if at := config.Service; at != nil {
			target.Namespace, target.Service, target.Port = at.Namespace, at.Name, 443
			if at.Port != nil {
				target.Port = *at.Port
			}
			if at.Path != nil {
				target.Path = *at.Path
			}
		}
		client, err := hook.New(target, s)
		if err != nil {
			return broken{err}
		}
		return &webhook{client: client, versions: conv.Webhook.ConversionReviewVersions}
	}
}

// broken is the Converter of a definition whose webhook cannot be called.
type broken struct{ err error }

// Convert implements Converter.
func (b broken) Convert(_ context.Context, objs []*unstructured.Unstructured, _ schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	return nil, fmt.Errorf("conversion webhook for %s failed: %w", objs[0].GroupVersionKind(), b.err)
}

// webhook is a Converter that asks a webhook (ConversionReview). It believes only what a conversion may change.
type webhook struct {
	client   *hook.Client
	versions []string // of ConversionReview that the webhook understands, the best first
}

// Convert implements Converter.
func (w *webhook) Convert(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	kind := objs[0].GroupVersionKind()
	at := slices.IndexFunc(w.versions, func(v string) bool { return v == "v1" || v == "v1beta1" })
	if at < 0 {
		return nil, errors.New("no supported conversion review versions")
	}
	review := &apiextensionsv1.ConversionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: apiextensionsv1.GroupName + "/" + w.versions[at], Kind: "ConversionReview"},
		Request:  &apiextensionsv1.ConversionRequest{UID: uuid.NewUUID(), DesiredAPIVersion: to.String()},
	}
	for _, u := range objs {
		review.Request.Objects = append(review.Request.Objects, runtime.RawExtension{Object: u})
	}
	answer := &apiextensionsv1.ConversionReview{}
	err := w.client.Post(ctx, conversionLimit, review, answer)
	if err == nil {
		err = checkAnswer(review, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %s failed: %w", kind, err)
	}
	got := answer.Response.ConvertedObjects
	if len(got) != len(objs) {
		return nil, fmt.Errorf("conversion webhook for %s returned %d objects, expected %d", kind, len(got), len(objs))
	}
	out := make([]*unstructured.Unstructured, len(objs))
	for i := range got {
		if out[i], err = converted(objs[i], got[i].Raw, to); err != nil {
			return nil, fmt.Errorf("conversion webhook for %s returned invalid converted object at index %d: %w", kind, i, err)
		}
	}
	return out, nil
}

// checkAnswer returns an error unless a review was answered, and with success.
func checkAnswer(asked, answer *apiextensionsv1.ConversionReview) error {
	r := answer.Response
	if asked.APIVersion == apiextensionsv1.SchemeGroupVersion.String() { // v1beta1 asked neither for the kind nor for the UID
		if answer.GroupVersionKind() != asked.GroupVersionKind() {
			return fmt.Errorf("expected webhook response of %s, got %s", asked.GroupVersionKind(), answer.GroupVersionKind())
		}
		if r != nil && r.UID != asked.Request.UID {
			return fmt.Errorf("expected response.uid=%q, got %q", asked.Request.UID, r.UID)
		}
	}
	switch {
	case r == nil:
		return errors.New("no response provided")
	case r.Result.Status == metav1.StatusSuccess:
		return nil
	case r.Result.Message != "":
		return errors.New(r.Result.Message)
	}
	return fmt.Errorf("response.result.status was '%s', not 'Success'", r.Result.Status)
}

// converted reads what a webhook made of an object. Its metadata stays what it was, but for labels and annotations.
func converted(from *unstructured.Unstructured, raw []byte, to schema.GroupVersion) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	was, is := from.GroupVersionKind(), u.GroupVersionKind()
	switch {
	case is.GroupVersion() != to:
		return nil, fmt.Errorf("invalid groupVersion (expected %s, received %s)", to, is.GroupVersion())
	case is.Kind != was.Kind:
		return nil, fmt.Errorf("invalid kind (expected %s, received %s)", was.Kind, is.Kind)
	case u.GetName() != from.GetName():
		return nil, fmt.Errorf("must have the same name: %s != %s", from.GetName(), u.GetName())
	case u.GetNamespace() != from.GetNamespace():
		return nil, fmt.Errorf("must have the same namespace: %s != %s", from.GetNamespace(), u.GetNamespace())
	case u.GetUID() != from.GetUID():
		return nil, fmt.Errorf("must have the same UID: %s != %s", from.GetUID(), u.GetUID())
	}
	got, ok := u.Object["metadata"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("invalid metadata of type %T in converted object", u.Object["metadata"])
	}
	had, _ := from.Object["metadata"].(map[string]any)
	meta := runtime.DeepCopyJSON(had)
	for _, name := range []string{"labels", "annotations"} {
		delete(meta, name)
		if got[name] == nil {
			continue
		}
		if err := checkTexts(name, got[name], had[name]); err != nil {
			return nil, err
		}
		meta[name] = got[name]
	}
	u.Object["metadata"] = meta
	return u, nil
}

// checkTexts returns an error unless labels or annotations that a webhook changed are valid.
func checkTexts(name string, now, before any) error {
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	var texts, had map[string]string
	if err := json.Unmarshal(b, &texts); err != nil {
		return fmt.Errorf("invalid metadata.%s in converted object: %w", name, err)
	}
	if b, err = json.Marshal(before); err == nil && json.Unmarshal(b, &had) == nil && maps.Equal(texts, had) {
		return nil
	}
	path := field.NewPath("metadata", name)
	if name == "labels" {
		return metav1validation.ValidateLabels(texts, path).ToAggregate()
	}
	return apimachineryvalidation.ValidateAnnotations(texts, path).ToAggregate()
}
