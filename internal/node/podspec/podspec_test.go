package podspec

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func ptr[T any](v T) *T { return &v }

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "B": "2"}
	lookup := func(n string) (string, bool) { v, ok := env[n]; return v, ok }
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$(A)": "1", "x$(A)y$(B)": "x1y2", "$$(A)": "$(A)", "$(NO)": "$(NO)", "$A": "$A", "$": "$", "$(A": "$(A",
		"$$": "$", "$$$(A)": "$1", "$()": "$()", "a$$b": "a$b",
	} {
		if got := Expand(in, lookup); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B)$(")
	f.Fuzz(func(t *testing.T, s string) {
		got := Expand(s, func(string) (string, bool) { return "", false })
		if !strings.Contains(s, "$$") && got != s {
			t.Errorf("Expand(%q) = %q changed text without references", s, got)
		}
	})
}

// objects is a Lookup over a few objects.
type objects map[string]any

func (o objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if c, ok := o["cm/"+name]; ok {
		return c.(*corev1.ConfigMap), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if c, ok := o["secret/"+name]; ok {
		return c.(*corev1.Secret), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (o objects) Services(_ context.Context, ns string) ([]*corev1.Service, error) {
	s, _ := o["services/"+ns].([]*corev1.Service)
	return s, nil
}

func envPod(change func(*corev1.Container)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"l": "v"}},
		Spec: corev1.PodSpec{NodeName: "n", ServiceAccountName: "sa", Containers: []corev1.Container{{Name: "c"}}}}
	change(&p.Spec.Containers[0])
	return p
}

func TestEnv(t *testing.T) {
	svc := func(name, ip string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: "TCP"}}}}
	}
	l := objects{
		"cm/cm":            &corev1.ConfigMap{Data: map[string]string{"k": "v", "z": "last"}},
		"secret/s":         &corev1.Secret{Data: map[string][]byte{"pw": []byte("x")}},
		"services/default": []*corev1.Service{svc("kubernetes", "10.96.0.1"), svc("other", "10.96.0.9")},
		"services/ns":      []*corev1.Service{svc("my-db", "10.96.0.2"), svc("headless", "None")},
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	pod := envPod(func(c *corev1.Container) {
		c.EnvFrom = []corev1.EnvFromSource{{Prefix: "C_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "gone"}, Optional: ptr(true)}}}
		c.Env = []corev1.EnvVar{
			{Name: "C_z", Value: "over"}, {Name: "IP", ValueFrom: field("status.podIP")}, {Name: "URL", Value: "http://$(IP):$(MY_DB_SERVICE_PORT)$(NOPE)"},
			{Name: "LABEL", ValueFrom: field("metadata.labels['l']")}, {Name: "EMPTY"},
			{Name: "PW", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "pw"}}},
			{Name: "GONE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "no", Optional: ptr(true)}}},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		}
	})
	facts := Facts{PodIPs: []string{"10.1.1.1"}, Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1000000001")}}
	env, err := Env(t.Context(), pod, &pod.Spec.Containers[0], l, nil, facts)
	if err != nil {
		t.Fatal(err)
	}
	want := `C_k=v C_z=over IP=10.1.1.1 URL=http://10.1.1.1:80$(NOPE) LABEL=v EMPTY= PW=x MEM=954
		KUBERNETES_PORT=tcp://10.96.0.1:80 KUBERNETES_PORT_80_TCP=tcp://10.96.0.1:80 KUBERNETES_PORT_80_TCP_ADDR=10.96.0.1 KUBERNETES_PORT_80_TCP_PORT=80
		KUBERNETES_PORT_80_TCP_PROTO=tcp KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=80 KUBERNETES_SERVICE_PORT_WEB=80
		MY_DB_PORT=tcp://10.96.0.2:80 MY_DB_PORT_80_TCP=tcp://10.96.0.2:80 MY_DB_PORT_80_TCP_ADDR=10.96.0.2 MY_DB_PORT_80_TCP_PORT=80
		MY_DB_PORT_80_TCP_PROTO=tcp MY_DB_SERVICE_HOST=10.96.0.2 MY_DB_SERVICE_PORT=80 MY_DB_SERVICE_PORT_WEB=80`
	var got []string
	for _, kv := range env {
		got = append(got, kv.Key+"="+string(kv.Value))
	}
	if diff := cmp.Diff(strings.Fields(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestEnvErrorsNameWhatIsMissing(t *testing.T) {
	l := objects{"cm/cm": &corev1.ConfigMap{}}
	for want, src := range map[string]*corev1.EnvVarSource{
		`configmaps "no" not found`:                    {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Key: "k"}},
		"couldn't find key k in ConfigMap ns/cm":       {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k"}},
		`field path "spec.nope" is not supported`:      {FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nope"}},
		`resourceFieldRef names container "elsewhere"`: {ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "elsewhere", Resource: "limits.cpu"}},
	} {
		pod := envPod(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: src}} })
		if _, err := Env(t.Context(), pod, &pod.Spec.Containers[0], l, nil, Facts{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestResources(t *testing.T) {
	list := func(cpu, mem string) corev1.ResourceList {
		out := corev1.ResourceList{}
		if cpu != "" {
			out[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if mem != "" {
			out[corev1.ResourceMemory] = resource.MustParse(mem)
		}
		return out
	}
	capacity := list("4", "10Gi")
	for _, tc := range []struct {
		name      string
		req, lim  corev1.ResourceList
		want, pod string
	}{
		{"best effort", nil, nil, "shares 2 quota 0 mem 0 oom 1000", "BestEffort shares 2 quota 0 mem 0"},
		{"burstable", list("100m", "1Gi"), nil, "shares 102 quota 0 mem 0 oom 900", "Burstable shares 102 quota 0 mem 0"},
		{"limited", list("100m", "1Gi"), list("200m", "2Gi"), "shares 102 quota 20000 mem 2147483648 oom 900", "Burstable shares 102 quota 20000 mem 2147483648"},
		{"guaranteed", list("1", "1Gi"), list("1", "1Gi"), "shares 1024 quota 100000 mem 1073741824 oom -997", "Guaranteed shares 1024 quota 100000 mem 1073741824"},
		{"tiny", list("1m", ""), list("1m", ""), "shares 2 quota 1000 mem 0 oom 999", "Burstable shares 2 quota 1000 mem 0"},
		{"a limit beyond 64 bits is a limit", list("1m", "1Mi"), list("10P", "12E"), "shares 2 quota 17592186044415 mem 9223372036854775807 oom 999",
			"Burstable shares 2 quota 17592186044415 mem 9223372036854775807"},
		{"a request beyond 64 bits", list("10P", "12E"), nil, "shares 262144 quota 0 mem 0 oom 3", "Burstable shares 262144 quota 0 mem 0"},
	} {
		pod := envPod(func(c *corev1.Container) { c.Resources.Requests, c.Resources.Limits = tc.req, tc.lim })
		r, p := ContainerResources(pod, &pod.Spec.Containers[0], capacity), ForPod(pod)
		if got := fmt.Sprintf("shares %d quota %d mem %d oom %d", r.CpuShares, r.CpuQuota, r.MemoryLimitInBytes, r.OomScoreAdj); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if got := fmt.Sprintf("%s shares %d quota %d mem %d", p.QOS, p.Shares, p.Quota, p.MemoryLimit); got != tc.pod {
			t.Errorf("%s: pod %s, want %s", tc.name, got, tc.pod)
		}
	}
}

func TestDNS(t *testing.T) {
	host, err := ParseResolvConf(strings.NewReader("# c\nnameserver 192.0.2.53\nsearch corp.example. example\noptions timeout:2 rotate\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := DNS{ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", Host: host}
	for _, tc := range []struct {
		policy corev1.DNSPolicy
		host   bool
		cfg    *corev1.PodDNSConfig
		want   string
	}{
		{corev1.DNSClusterFirst, false, nil, "[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example example] [ndots:5]"},
		{corev1.DNSClusterFirst, true, nil, "[192.0.2.53] [corp.example example] [timeout:2 rotate]"},
		{corev1.DNSClusterFirstWithHostNet, true, nil, "[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example example] [ndots:5]"},
		{corev1.DNSDefault, false, nil, "[192.0.2.53] [corp.example example] [timeout:2 rotate]"},
		{corev1.DNSNone, false, &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"a"}}, "[1.1.1.1] [a] []"},
		{corev1.DNSClusterFirst, false, &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr("2")}, {Name: "edns0"}}},
			"[10.96.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local corp.example example] [ndots:2 edns0]"},
	} {
		pod := envPod(func(*corev1.Container) {})
		pod.Spec.DNSPolicy, pod.Spec.HostNetwork, pod.Spec.DNSConfig = tc.policy, tc.host, tc.cfg
		c, err := d.For(pod)
		if got := fmt.Sprint(c.GetServers(), c.GetSearches(), c.GetOptions()); err != nil || got != tc.want {
			t.Errorf("%s host=%v: %s %v, want %s", tc.policy, tc.host, got, err, tc.want)
		}
	}
}

func TestHostnameAndHosts(t *testing.T) {
	pod := envPod(func(*corev1.Container) {})
	pod.Spec.Hostname, pod.Spec.Subdomain = "web", "sub"
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a", "b"}}}
	if h, d, err := Hostname(pod, "cluster.local"); h != "web" || d != "sub.ns.svc.cluster.local" || err != nil {
		t.Errorf("%q %q %v", h, d, err)
	}
	text, err := Hosts(pod, []string{"10.1.1.1"}, "cluster.local", nil)
	if err != nil || !strings.Contains(string(text), "10.1.1.1\tweb.sub.ns.svc.cluster.local\tweb\n") || !strings.HasSuffix(string(text), "# Entries added by HostAliases.\n192.0.2.9\ta\tb\n") {
		t.Errorf("%s %v", text, err)
	}
	pod.Spec.SetHostnameAsFQDN = ptr(true)
	if h, _, err := Hostname(pod, "cluster.local"); h != "web.sub.ns.svc.cluster.local" || err != nil {
		t.Errorf("%q %v", h, err)
	}
	if _, _, err := Hostname(pod, strings.Repeat("x", 60)); err == nil || !strings.Contains(err.Error(), "64 characters is the max") {
		t.Errorf("a name that is too long: %v", err)
	}
}

func TestVerifyNonRoot(t *testing.T) {
	for _, tc := range []struct {
		uid   *int64
		image *cri.Image
		want  string
	}{
		{ptr(int64(1000)), &cri.Image{}, ""},
		{ptr(int64(0)), &cri.Image{}, "runAsUser breaks non-root policy"},
		{nil, &cri.Image{Uid: &cri.Int64Value{Value: 5}}, ""},
		{nil, &cri.Image{Uid: &cri.Int64Value{}}, "image will run as root"},
		{nil, &cri.Image{}, "image will run as root"},
		{nil, &cri.Image{Username: "redis"}, "non-numeric user (redis)"},
	} {
		pod := envPod(func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: ptr(true), RunAsUser: tc.uid}
		})
		err := VerifyNonRoot(pod, &pod.Spec.Containers[0], tc.image)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v %v: %v, want %q", tc.uid, tc.image, err, tc.want)
		}
	}
}

func TestContainerAndSandbox(t *testing.T) {
	pod := envPod(func(c *corev1.Container) {
		c.Image, c.Command, c.Args = "img:1", []string{"run", "$(A)"}, []string{"$(B)"}
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(7)), AllowPrivilegeEscalation: ptr(false),
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"ALL"}}}
		c.Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080, Protocol: "UDP"}, {ContainerPort: 81}}
	})
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1)), RunAsGroup: ptr(int64(2)), FSGroup: ptr(int64(3)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr("p/x.json")}, Sysctls: []corev1.Sysctl{{Name: "net.a", Value: "1"}}}
	pod.Spec.ShareProcessNamespace = ptr(true)
	n := &Node{LogDir: "/logs", SeccompDir: "/sec", CgroupParent: "/g", DNS: DNS{ClusterDomain: "cluster.local"}}
	sb, err := Sandbox(pod, n, 3)
	if err != nil {
		t.Fatal(err)
	}
	if sb.Hostname != "p" || sb.LogDirectory != "/logs/ns_p_u" || sb.Metadata.Attempt != 3 || sb.Linux.Sysctls["net.a"] != "1" || sb.Linux.CgroupParent != "/g" ||
		len(sb.PortMappings) != 1 || sb.PortMappings[0].Protocol != cri.Protocol_UDP || sb.Linux.SecurityContext.NamespaceOptions.Pid != cri.NamespaceMode_POD {
		t.Errorf("sandbox %v", sb)
	}
	c, err := Container(pod, &pod.Spec.Containers[0], n, 2, &cri.Image{Id: "sha"}, []*cri.KeyValue{{Key: "A", Value: []byte("x")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Linux.SecurityContext
	if fmt.Sprint(c.Command, c.Args) != "[run x] [$(B)]" || c.LogPath != "c/2.log" || c.Image.Image != "sha" || s.RunAsUser.Value != 7 || s.RunAsGroup.Value != 2 ||
		fmt.Sprint(s.SupplementalGroups) != "[3]" || !s.NoNewPrivs || s.Seccomp.LocalhostRef != "/sec/p/x.json" || fmt.Sprint(s.Capabilities.DropCapabilities) != "[ALL]" || len(s.MaskedPaths) == 0 {
		t.Errorf("container %v", c)
	}
}

// A container without limits has the pod's, in its own control group and in what it is told (KEP-2837).
func TestContainersWithoutLimitsHaveThePods(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		Resources:  &corev1.ResourceRequirements{Requests: list("500m", "64Mi"), Limits: list("2", "128Mi")},
		Containers: []corev1.Container{{Name: "free"}, {Name: "bound", Resources: corev1.ResourceRequirements{Limits: list("1", "32Mi")}}},
	}}
	capacity := list("8", "16Gi")
	for i, want := range []struct{ quota, memory int64 }{{200_000, 128 << 20}, {100_000, 32 << 20}} {
		c := &pod.Spec.Containers[i]
		r := ContainerResources(pod, c, capacity)
		if r.CpuQuota != want.quota || r.MemoryLimitInBytes != want.memory {
			t.Errorf("%s: quota %d and %d bytes, want %d and %d", c.Name, r.CpuQuota, r.MemoryLimitInBytes, want.quota, want.memory)
		}
		got, err := Resource(pod, c.Name, &corev1.ResourceFieldSelector{Resource: "limits.memory"}, Facts{Allocatable: capacity})
		if err != nil || got != strconv.FormatInt(want.memory, 10) {
			t.Errorf("%s is told that its limit is %s, %v; want %d", c.Name, got, err, want.memory)
		}
	}
}
