package controlplane

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Who writes in this process, as admission sees it and as managedFields name it.
var (
	// apiServer is the server itself: what it makes at start, and the status of quotas that it charges.
	apiServer     = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	kubeScheduler = &user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}
)

// controllerAccount is the service account of a controller.
func controllerAccount(name string) user.Info {
	account := serviceaccount.UserInfo(metav1.NamespaceSystem, name, "")
	return &user.DefaultInfo{Name: account.GetName(), Groups: append(account.GetGroups(), user.AllAuthenticated)}
}
