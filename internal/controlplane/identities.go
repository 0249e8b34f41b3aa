package controlplane

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/server/usage"
)

// Who writes in this process, as admission sees it and as managedFields name it.
var (
	// apiServer is the server itself: what it makes at start, and the status of quotas that it charges.
	apiServer     = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	kubeScheduler = &user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}
)

// NodeClient returns the client of the agent of a node in this process: its writes are those of the node, as they are when the agent
// is on another machine, and so NodeRestriction looks at them, too.
func (p *Plane) NodeClient(node string) client.Client {
	who := &user.DefaultInfo{Name: "system:node:" + node, Groups: []string{user.NodesGroup, user.AllAuthenticated}}
	return p.Client.AsManager(who, AgentManager)
}

// AgentManager is how managedFields name an agent, wherever it runs.
const AgentManager = "knarr-agent"

// groupVersions are the built-in ones that the API server serves.
func groupVersions() []schema.GroupVersion {
	out := []schema.GroupVersion{authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion, usage.GroupVersion}
	for _, res := range api.Builtin {
		out = append(out, res.GroupVersions()...)
	}
	return out
}

// controllerAccount is the service account of a controller.
func controllerAccount(name string) user.Info {
	account := serviceaccount.UserInfo(metav1.NamespaceSystem, name, "")
	return &user.DefaultInfo{Name: account.GetName(), Groups: append(account.GetGroups(), user.AllAuthenticated)}
}
