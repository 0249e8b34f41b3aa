package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestPodsThatNoNodeOfThisKindRuns(t *testing.T) {
	sysctl := func(name string) corev1.PodSpec {
		return corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}}
	}
	hostNetwork, hostIPC := sysctl("net.ipv4.tcp_rmem"), sysctl("kernel.shm_rmid_forced")
	hostNetwork.HostNetwork, hostIPC.HostIPC = true, true
	for name, tc := range map[string]struct {
		spec            corev1.PodSpec
		reason, message string
	}{
		"nothing asked":      {},
		"linux":              {spec: corev1.PodSpec{OS: &corev1.PodOS{Name: corev1.Linux}}},
		"windows":            {corev1.PodSpec{OS: &corev1.PodOS{Name: corev1.Windows}}, "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		"safe":               {spec: sysctl("net.ipv4.ip_local_port_range")},
		"safe, with slashes": {spec: sysctl("net/ipv4/ip_local_port_range")},
		"unsafe":             {sysctl("kernel.msgmax"), "SysctlForbidden", `forbidden sysctl: "kernel.msgmax" not allowlisted`},
		"host network":       {hostNetwork, "SysctlForbidden", `forbidden sysctl: "net.ipv4.tcp_rmem" not allowed with host net enabled`},
		"host IPC":           {hostIPC, "SysctlForbidden", `forbidden sysctl: "kernel.shm_rmid_forced" not allowed with host ipc enabled`},
	} {
		f := unfit(&corev1.Pod{Spec: tc.spec}, nil)
		if f == nil && tc.reason == "" {
			continue
		}
		if f == nil || f.Reason != tc.reason || f.Message != tc.message {
			t.Errorf("%s: %+v, want %s: %s", name, f, tc.reason, tc.message)
		}
	}
}

// A runtime that does not know the policy would give the process the groups that it is not to have.
func TestStrictGroupsNeedARuntimeThatHasThem(t *testing.T) {
	strict, merge, yes, no := corev1.SupplementalGroupsPolicyStrict, corev1.SupplementalGroupsPolicyMerge, true, false
	for _, tc := range []struct {
		policy   *corev1.SupplementalGroupsPolicy
		features *corev1.NodeFeatures
		refused  bool
	}{
		{nil, nil, false},
		{&merge, nil, false},
		{&strict, nil, true},
		{&strict, &corev1.NodeFeatures{}, true},
		{&strict, &corev1.NodeFeatures{SupplementalGroupsPolicy: &no}, true},
		{&strict, &corev1.NodeFeatures{SupplementalGroupsPolicy: &yes}, false},
	} {
		f := unfit(&corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{SupplementalGroupsPolicy: tc.policy}}}, tc.features)
		if (f != nil) != tc.refused || f != nil && f.Reason != "SupplementalGroupsPolicyNotSupported" {
			t.Errorf("%+v: %+v", tc, f)
		}
	}
}
