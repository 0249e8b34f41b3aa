package webhook

import (
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/cel"
	client "github.com/knarr-io/knarr/internal/server/hook"
	"github.com/knarr-io/knarr/internal/store"
)

// healAnnotation, with the value "never" on a configuration, has its webhooks asked although their back end is dead and
// the write would heal it.
const healAnnotation = "knarr.io/webhook-healing"

// hook is one webhook of a configuration, compiled.
type hook struct {
	configuration api.Object
	id            string // unique among the webhooks of its kind, whatever their names
	name          string
	criteria      *match.Criteria
	conditions    *cel.Conditions // nil: none
	ignore        bool            // failures are passed over
	again         bool            // it is to see later changes, too
	timeout       time.Duration
	sideEffects   *admissionregistrationv1.SideEffectClass
	versions      []string // of AdmissionReview, the best first
	target        client.Target
	client        *client.Client
	broken        error // why there is no client
	heals         bool
	breaker       *breaker
}

// declared is what both kinds of webhooks say.
type declared struct {
	name         string
	config       admissionregistrationv1.WebhookClientConfig
	criteria     *match.Criteria
	conditions   []admissionregistrationv1.MatchCondition
	failures     *admissionregistrationv1.FailurePolicyType
	sideEffects  *admissionregistrationv1.SideEffectClass
	seconds      *int32
	versions     []string
	reinvocation *admissionregistrationv1.ReinvocationPolicyType
}

// declarations returns the webhooks of a configuration in their order.
func declarations(configuration api.Object) []declared {
	var out []declared
	switch c := configuration.(type) {
	case *admissionregistrationv1.MutatingWebhookConfiguration:
		for i := range c.Webhooks {
			w := &c.Webhooks[i]
			out = append(out, declared{
				w.Name, w.ClientConfig, match.Webhook(w.Rules, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector), w.MatchConditions,
				w.FailurePolicy, w.SideEffects, w.TimeoutSeconds, w.AdmissionReviewVersions, w.ReinvocationPolicy,
			})
		}
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		for i := range c.Webhooks {
			w := &c.Webhooks[i]
			out = append(out, declared{
				w.Name, w.ClientConfig, match.Webhook(w.Rules, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector), w.MatchConditions,
				w.FailurePolicy, w.SideEffects, w.TimeoutSeconds, w.AdmissionReviewVersions, nil,
			})
		}
	}
	return out
}

// compile makes the hooks of a configuration. Breakers stay those of the same webhook of before, as long as its target does.
func compile(configuration api.Object, before []*hook, programs *cel.Programs, s *store.Store) []*hook {
	var out []*hook
	count := map[string]int{}
	for _, d := range declarations(configuration) {
		h := &hook{
			configuration: configuration, id: fmt.Sprintf("%s/%s/%d", configuration.GetName(), d.name, count[d.name]), name: d.name, criteria: d.criteria,
			ignore:      d.failures != nil && *d.failures == admissionregistrationv1.Ignore,
			again:       d.reinvocation != nil && *d.reinvocation == admissionregistrationv1.IfNeededReinvocationPolicy,
			sideEffects: d.sideEffects, versions: d.versions, target: target(&d.config),
			heals: configuration.GetAnnotations()[healAnnotation] != "never",
		}
		count[d.name]++
		if len(d.conditions) > 0 {
			h.conditions = programs.Conditions(d.conditions)
		}
		if d.seconds != nil {
			h.timeout = time.Duration(*d.seconds) * time.Second
		}
		if i := slices.IndexFunc(before, func(b *hook) bool { return b.id == h.id && sameTarget(b.target, h.target) }); i >= 0 {
			h.client, h.broken, h.breaker = before[i].client, before[i].broken, before[i].breaker
		} else {
			h.client, h.broken = client.New(h.target, s)
			h.breaker = &breaker{}
		}
		out = append(out, h)
	}
	return out
}

func sameTarget(a, b client.Target) bool {
	x, y := string(a.CA), string(b.CA)
	a.CA, b.CA = nil, nil
	return x == y && a.URL == b.URL && a.Namespace == b.Namespace && a.Service == b.Service && a.Path == b.Path && a.Port == b.Port
}

// target is where a webhook is.
func target(c *admissionregistrationv1.WebhookClientConfig) client.Target {
	t := client.Target{CA: c.CABundle}
	if c.URL != nil {
		t.URL = *c.URL
	}
	if at := c.Service; at != nil {
		t.Namespace, t.Service, t.Port = at.Namespace, at.Name, 443
		if at.Port != nil {
			t.Port = *at.Port
		}
		if at.Path != nil {
			t.Path = *at.Path
		}
	}
	return t
}

// backend names who answers for a webhook, in messages.
func (h *hook) backend() string {
	if h.target.Service == "" {
		return h.target.URL
	}
	return "service " + types.NamespacedName{Namespace: h.target.Namespace, Name: h.target.Service}.String()
}

// withoutEffects reports whether the webhook may be asked in a dry run.
func (h *hook) withoutEffects() bool {
	return *h.sideEffects == admissionregistrationv1.SideEffectClassNone || *h.sideEffects == admissionregistrationv1.SideEffectClassNoneOnDryRun
}

// version is the version of AdmissionReview in which the webhook is asked, "" if it understands none that there is.
func (h *hook) version() string {
	if i := slices.IndexFunc(h.versions, func(v string) bool { return v == "v1" || v == "v1beta1" }); i >= 0 {
		return h.versions[i]
	}
	return ""
}

// metricType is how metrics call the kind of a webhook.
func metricType(mutating bool) string {
	if mutating {
		return "admit"
	}
	return "validating"
}
