package webhook

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/request"
)

// Outage is news of the back end of a webhook: it has ceased to answer, or answers again.
type Outage struct {
	Configuration api.Object
	Webhook       string
	Backend       string // "service NAMESPACE/NAME", or a URL
	Refuses       bool   // what the webhook would be asked about is refused meanwhile
	Err           error  // nil: it answers again
}

// announce hands on news of a webhook. What nobody takes is lost: the next outage is news again.
func (w *Webhooks) announce(h *hook, err error) {
	if err != nil {
		w.cfg.Log.Warn("a webhook does not answer: it is asked rarely until it does", "webhook", h.name, "at", h.backend(), "err", err)
	} else {
		w.cfg.Log.Info("a webhook answers again", "webhook", h.name, "at", h.backend())
	}
	select {
	case w.outages <- Outage{h.configuration, h.name, h.backend(), !h.ignore, err}:
	default:
	}
}

// heals reports whether a write is to pass a webhook whose back end is dead, as it may bring the back end to life again. Only webhooks that
// refuse what they cannot be asked about stand in anybody's way.
func (w *write) heals(ctx context.Context, h *hook) bool {
	if h.ignore || !h.heals {
		return false
	}
	info := request.From(ctx)
	who := w.a.User
	if who == nil {
		return false
	}
	system := systemWriter(who, info.InProcess)
	switch {
	case system && (heartbeat(w.a, who) || report(w.a, who, info.InProcess)):
	case helpsBackend(w.a, h.target.Namespace) && (system || w.maySwitchOff(ctx, who, h)):
	default:
		return false
	}
	if !h.breaker.open() && h.client.Unreachable() == nil {
		return false
	}
	w.metrics.healed.WithLabelValues(h.name, metricType(w.mutating)).Inc()
	w.cfg.Log.Info("a write passes a webhook whose back end is dead, as it may heal it", "webhook", h.name, "at", h.backend(),
		"user", who.GetName(), "operation", w.a.Operation, "resource", w.a.Resource.Plural, "object", w.a.Key)
	return true
}

// systemWriter reports whether a writer is a part of the system: a component in this process, or a node's agent.
func systemWriter(who user.Info, inProcess bool) bool {
	return inProcess || nodeName(who) != ""
}

// nodeName returns the name of the node whose agent writes, or "".
func nodeName(who user.Info) string {
	name, ok := strings.CutPrefix(who.GetName(), "system:node:")
	if !ok || !slices.Contains(who.GetGroups(), user.NodesGroup) {
		return ""
	}
	return name
}

// heartbeat reports whether a write says that a node is alive, or lets pods onto one that is: its Lease, its Node. Agents write their own
// alone.
func heartbeat(a *admission.Attributes, who user.Info) bool {
	node := nodeName(who)
	switch {
	case a.Operation != admission.Create && a.Operation != admission.Update:
		return false
	case a.Resource == api.Leases:
		return a.Key.Namespace == "kube-node-lease" && (node == "" || a.Key.Name == node)
	}
	return a.Resource == api.Nodes && (a.Subresource == "" || a.Subresource == "status") && (node == "" || a.Key.Name == node)
}

// report reports whether a write is the API server's own event: who is to hear of an outage must not be kept from it by the outage.
func report(a *admission.Attributes, who user.Info, inProcess bool) bool {
	return a.Resource == api.Events && inProcess && who.GetName() == user.APIServerUser
}

// healing are the resources from which a back end is made, with the subresources by which that is done.
func healing(res *api.Resource, sub string) bool {
	switch res {
	case api.Pods:
		return slices.Contains([]string{"", "status", "binding", "eviction", "resize"}, sub)
	case api.ServiceAccounts:
		return sub == "" || sub == "token"
	case api.Deployments, api.ReplicaSets, api.StatefulSets, api.DaemonSets, api.ReplicationControllers, api.Jobs, api.HorizontalPodAutoscalers:
		return sub == "" || sub == "status" || sub == "scale"
	case api.Services, api.Endpoints, api.EndpointSlices, api.ControllerRevisions, api.PersistentVolumeClaims, api.PodDisruptionBudgets,
		api.Leases, api.Events, api.Secrets, api.ConfigMaps, api.ResourceQuotas:
		return sub == "" || sub == "status"
	}
	return false
}

// helpsBackend reports whether a write is one of an object that may belong to the back end in a namespace: its pods, who makes them, and what
// they and the Service need; or of the namespace itself, which may be on its way out.
func helpsBackend(a *admission.Attributes, namespace string) bool {
	if namespace == "" || a.Operation == admission.Connect {
		return false
	}
	if a.Resource == api.Namespaces {
		return a.Key.Name == namespace && (a.Operation == admission.Delete || a.Subresource != "")
	}
	return a.Key.Namespace == namespace && healing(a.Resource, a.Subresource)
}

// maySwitchOff reports whether a user may delete the configuration of a webhook: who can switch it off altogether gains nothing by passing it.
func (w *write) maySwitchOff(ctx context.Context, who user.Info, h *hook) bool {
	res := api.ValidatingWebhookConfigurations
	if w.mutating {
		res = api.MutatingWebhookConfigurations
	}
	return authz.Check(ctx, w.cfg.Authorizer, &authz.Attributes{
		User: who, Verb: "delete", IsResource: true, Group: res.Group, Version: res.Version, Resource: res.Plural, Name: h.configuration.GetName(),
	}) == nil
}
