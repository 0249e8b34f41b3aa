package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// unfit returns why a node with these features cannot run the pod, whatever room it has, or nil.
func unfit(pod *corev1.Pod, features *corev1.NodeFeatures) *lifecycle.Failure {
	if os := pod.Spec.OS; os != nil && os.Name != "" && os.Name != corev1.Linux {
		return &lifecycle.Failure{Reason: "PodOSNotSupported", Message: "Failed to admit pod as the OS field doesn't match node OS"}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		if p := sc.SupplementalGroupsPolicy; p != nil && *p == corev1.SupplementalGroupsPolicyStrict && !strictGroups(features) {
			return &lifecycle.Failure{Reason: "SupplementalGroupsPolicyNotSupported", Message: "SupplementalGroupsPolicy=Strict is not supported in this node"}
		}
		for _, s := range sc.Sysctls {
			if why := forbiddenSysctl(pod, s.Name); why != "" {
				return &lifecycle.Failure{Reason: "SysctlForbidden", Message: "forbidden sysctl: " + why}
			}
		}
	}
	return nil
}

// strictGroups reports whether the node's runtime keeps the groups that an image's /etc/group gives away from processes (KEP-3619).
func strictGroups(f *corev1.NodeFeatures) bool {
	return f != nil && f.SupplementalGroupsPolicy != nil && *f.SupplementalGroupsPolicy
}

// safeSysctl reports whether every node lets pods set a sysctl, and which namespace keeps it from others
// (https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/#safe-and-unsafe-sysctls).
func safeSysctl(name string) (namespace string, ok bool) {
	switch name {
	case "kernel.shm_rmid_forced":
		return "ipc", true
	case "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start",
		"net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
		"net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat":
		return "net", true
	}
	return "", false
}

// forbiddenSysctl returns why the pod may not set a sysctl, or nothing.
func forbiddenSysctl(pod *corev1.Pod, name string) string {
	plain := name
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' { // either separator, by the first one
		plain = strings.NewReplacer("/", ".", ".", "/").Replace(name)
	}
	namespace, ok := safeSysctl(plain)
	switch {
	case !ok:
		return fmt.Sprintf("%q not allowlisted", name)
	case namespace == "ipc" && pod.Spec.HostIPC, namespace == "net" && pod.Spec.HostNetwork:
		return fmt.Sprintf("%q not allowed with host %s enabled", name, namespace)
	}
	return ""
}
