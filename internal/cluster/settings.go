package cluster

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// AgentSettings are what is the same on every machine of a cluster. Agents read them from ConfigMap
// kube-system/knarr-agent-config, which Role knarr:agent-config lets them.
type AgentSettings struct {
	ClusterCIDR, ServiceCIDR netip.Prefix
	ClusterDNS               netip.Addr
	ClusterDomain            string
	// Overlay is how packets travel between machines (--overlay of the server, network.Config.Mode); "" is auto.
	Overlay string
}

var agentConfig = api.Key{Namespace: metav1.NamespaceSystem, Name: "knarr-agent-config"}

// ConfigMap is the object that agents read.
func (s AgentSettings) ConfigMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: agentConfig.Namespace, Name: agentConfig.Name}, Data: s.Data()}
}

// Data is what ParseAgentSettings reads.
func (s AgentSettings) Data() map[string]string {
	return map[string]string{
		"clusterCIDR": s.ClusterCIDR.String(), "serviceCIDR": s.ServiceCIDR.String(), "clusterDNS": s.ClusterDNS.String(), "clusterDomain": s.ClusterDomain,
		"overlay": s.Overlay,
	}
}

// ReadAgentSettings asks the API for the cluster's settings.
func ReadAgentSettings(ctx context.Context, c client.Client) (AgentSettings, error) {
	cm, err := client.Get[*corev1.ConfigMap](ctx, c, agentConfig)
	if err != nil {
		return AgentSettings{}, fmt.Errorf("the cluster's settings for agents: %w", err)
	}
	return ParseAgentSettings(cm.Data)
}

// ParseAgentSettings reads the data of the ConfigMap.
func ParseAgentSettings(data map[string]string) (s AgentSettings, err error) {
	if s.ClusterCIDR, err = netip.ParsePrefix(data["clusterCIDR"]); err == nil {
		s.ServiceCIDR, err = netip.ParsePrefix(data["serviceCIDR"])
	}
	if err == nil {
		s.ClusterDNS, err = netip.ParseAddr(data["clusterDNS"])
	}
	s.Overlay = data["overlay"]
	if s.ClusterDomain = data["clusterDomain"]; err == nil && s.ClusterDomain == "" {
		err = fmt.Errorf("clusterDomain is missing")
	}
	if err != nil {
		return s, fmt.Errorf("ConfigMap %s: %w", agentConfig, err)
	}
	return s, nil
}
