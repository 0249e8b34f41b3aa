package podspec

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What an unprivileged container must not see or write in /proc and /sys, as container runtimes agree.
func maskedPaths() []string {
	return []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// containerSecurity merges the pod's and the container's security contexts; the container's wins.
func containerSecurity(pod *corev1.Pod, c *corev1.Container, n *Node, ns *cri.NamespaceOption) *cri.LinuxContainerSecurityContext {
	p, s := pod.Spec.SecurityContext, c.SecurityContext
	if p == nil {
		p = &corev1.PodSecurityContext{}
	}
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	out := &cri.LinuxContainerSecurityContext{
		Privileged: isTrue(s.Privileged), ReadonlyRootfs: isTrue(s.ReadOnlyRootFilesystem), NamespaceOptions: ns,
		NoNewPrivs: s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation,
		RunAsUser:  int64Value(s.RunAsUser, p.RunAsUser), RunAsGroup: int64Value(s.RunAsGroup, p.RunAsGroup),
		SupplementalGroups: supplemental(p, n), SupplementalGroupsPolicy: groupsPolicy(p),
		Seccomp: seccomp(s.SeccompProfile, p.SeccompProfile, n.SeccompDir), Apparmor: apparmor(s.AppArmorProfile, p.AppArmorProfile),
		SelinuxOptions: selinux(s.SELinuxOptions, p.SELinuxOptions),
	}
	if out.Privileged {
		out.NoNewPrivs = false
	} else if s.ProcMount == nil || *s.ProcMount != corev1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths(), readonlyPaths()
	}
	if s.Capabilities != nil {
		out.Capabilities = &cri.Capability{}
		for _, a := range s.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(a))
		}
		for _, d := range s.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(d))
		}
	}
	return out
}

func int64Value(first, second *int64) *cri.Int64Value {
	if first == nil {
		first = second
	}
	if first == nil {
		return nil
	}
	return &cri.Int64Value{Value: *first}
}

// supplemental returns the groups every process of the pod has: the listed ones, fsGroup and the volumes' own.
func supplemental(p *corev1.PodSecurityContext, n *Node) []int64 {
	out := append([]int64(nil), p.SupplementalGroups...)
	if p.FSGroup != nil {
		out = append(out, *p.FSGroup)
	}
	return out
}

func groupsPolicy(p *corev1.PodSecurityContext) cri.SupplementalGroupsPolicy {
	if p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return cri.SupplementalGroupsPolicy_Strict
	}
	return cri.SupplementalGroupsPolicy_Merge
}

func seccomp(first, second *corev1.SeccompProfile, dir string) *cri.SecurityProfile {
	if first == nil {
		first = second
	}
	switch {
	case first == nil || first.Type == corev1.SeccompProfileTypeUnconfined:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	case first.Type == corev1.SeccompProfileTypeLocalhost && first.LocalhostProfile != nil:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: filepath.Join(dir, filepath.Clean("/"+*first.LocalhostProfile))}
	}
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
}

func apparmor(first, second *corev1.AppArmorProfile) *cri.SecurityProfile {
	if first == nil {
		first = second
	}
	if first == nil {
		return nil
	}
	switch {
	case first.Type == corev1.AppArmorProfileTypeUnconfined:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	case first.Type == corev1.AppArmorProfileTypeLocalhost && first.LocalhostProfile != nil:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: *first.LocalhostProfile}
	}
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
}

func selinux(first, second *corev1.SELinuxOptions) *cri.SELinuxOption {
	if first == nil {
		first = second
	}
	if first == nil {
		return nil
	}
	return &cri.SELinuxOption{User: first.User, Role: first.Role, Type: first.Type, Level: first.Level}
}

// namespaces returns which namespaces the pod's containers share with whom.
func namespaces(pod *corev1.Pod, n *Node) *cri.NamespaceOption {
	out := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	switch {
	case pod.Spec.HostPID:
		out.Pid = cri.NamespaceMode_NODE
	case isTrue(pod.Spec.ShareProcessNamespace):
		out.Pid = cri.NamespaceMode_POD
	}
	if pod.Spec.HostNetwork {
		out.Network = cri.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = cri.NamespaceMode_NODE
	}
	if n.UserNamespace != nil {
		out.UsernsOptions = n.UserNamespace
	}
	return out
}

// VerifyNonRoot checks runAsNonRoot against the user that the container will have: its own, or the image's.
func VerifyNonRoot(pod *corev1.Pod, c *corev1.Container, image *cri.Image) error {
	p, s := pod.Spec.SecurityContext, c.SecurityContext
	var nonRoot *bool
	var uid *int64
	if p != nil {
		nonRoot, uid = p.RunAsNonRoot, p.RunAsUser
	}
	if s != nil {
		if s.RunAsNonRoot != nil {
			nonRoot = s.RunAsNonRoot
		}
		if s.RunAsUser != nil {
			uid = s.RunAsUser
		}
	}
	if !isTrue(nonRoot) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", pod.Name+"_"+pod.Namespace+"("+string(pod.UID)+")", c.Name)
	switch {
	case uid != nil && *uid == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
	case uid != nil:
		return nil
	case image == nil:
		return nil
	case image.Uid != nil && image.Uid.Value == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case image.Uid == nil && image.Username == "":
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	case image.Uid == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", image.Username, where)
	}
	return nil
}
