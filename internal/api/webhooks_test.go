package api

import (
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// What a configuration leaves out is what makes a webhook strict, prompt and called for equivalent versions; its generation follows
// its webhooks alone.
func TestWebhookConfigurations(t *testing.T) {
	c := create[*admissionregistrationv1.MutatingWebhookConfiguration](t, goodWebhook)
	w := c.Webhooks[0]
	if *w.FailurePolicy != admissionregistrationv1.Fail || *w.MatchPolicy != admissionregistrationv1.Equivalent || *w.TimeoutSeconds != 10 ||
		*w.ReinvocationPolicy != admissionregistrationv1.NeverReinvocationPolicy || *w.Rules[0].Scope != admissionregistrationv1.AllScopes ||
		w.NamespaceSelector == nil || w.ObjectSelector == nil || *w.ClientConfig.Service.Port != 443 {
		t.Errorf("defaults: %+v", w)
	}
	labelled := update(t, c, "", func(c *admissionregistrationv1.MutatingWebhookConfiguration) { c.Labels = map[string]string{"a": "b"} })
	changed := update(t, c, "", func(c *admissionregistrationv1.MutatingWebhookConfiguration) { *c.Webhooks[0].TimeoutSeconds = 3 })
	if c.Generation != 1 || labelled.Generation != 1 || changed.Generation != 2 {
		t.Errorf("generations %d, %d, %d", c.Generation, labelled.Generation, changed.Generation)
	}
}
