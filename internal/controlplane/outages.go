package controlplane

import (
	"context"
	"time"

	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/server/admission/webhook"
)

// reportOutage writes an event about a webhook's configuration, which has no status: its back end has ceased to answer, or answers again.
func (p *Plane) reportOutage(ctx context.Context, o webhook.Outage) {
	follows := "what it would be asked about is let through meanwhile"
	if o.Refuses {
		follows = "what it would be asked about is refused meanwhile, but for what may heal its back end"
	}
	e := event.Normal(o.Configuration, "WebhookAvailable", "webhook %q at %s answers again", o.Webhook, o.Backend)
	if o.Err != nil {
		e = event.Warning(o.Configuration, "WebhookUnavailable", "webhook %q at %s does not answer: %s (%v)", o.Webhook, o.Backend, follows, o.Err)
	}
	event.Write(ctx, p.Client, "kube-apiserver", time.Now(), e)
}
