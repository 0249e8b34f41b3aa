package api

import (
	"k8s.io/apimachinery/pkg/api/resource"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

func create[T Object](t testing.TB, manifest string) T {
	t.Helper()
	obj := read(t, manifest)
	resourceOf(t, obj).PrepareForCreate(obj)
	return obj.(T)
}

// update defaults and prepares a changed copy of old, as the server does, and checks that old stays as it was.
func update[T Object](t testing.TB, old T, sub string, change func(T)) T {
	t.Helper()
	obj := old.DeepCopyObject().(T)
	change(obj)
	before := old.DeepCopyObject()
	res := resourceOf(t, old)
	res.Default(obj)
	res.PrepareForUpdate(obj, old, sub)
	if diff := cmp.Diff(before, runtime.Object(old)); diff != "" {
		t.Fatalf("the stored object changed:\n%s", diff)
	}
	return obj
}

func TestPodCreate(t *testing.T) {
	pod := create[*corev1.Pod](t, `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, generation: 9}
spec:
  serviceAccountName: robot
  containers:
  - {name: web, image: nginx, resources: {limits: {cpu: 1, memory: 1Mi}}}
status: {phase: Running, podIP: 10.0.0.1, qosClass: BestEffort}
`)
	want := corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSGuaranteed}
	if diff := cmp.Diff(want, pod.Status); diff != "" {
		t.Errorf("status: %s", diff)
	}
	if pod.Generation != 1 {
		t.Errorf("generation %d", pod.Generation)
	}
	if pod.Spec.DeprecatedServiceAccount != "robot" {
		t.Errorf("spec.serviceAccount %q does not follow spec.serviceAccountName", pod.Spec.DeprecatedServiceAccount)
	}
	if got := pod.Spec.Containers[0].Resources.Requests.Cpu().String(); got != "1" {
		t.Errorf("cpu request %s does not follow the limit", got)
	}
	if pod.APIVersion != "v1" || pod.Kind != "Pod" {
		t.Errorf("type meta lost: %v", pod.TypeMeta)
	}
}

func TestPodCreateGatedAndSpread(t *testing.T) {
	pod := create[*corev1.Pod](t, `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, labels: {hash: h1}}
spec:
  schedulingGates: [{name: example.com/wait}]
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}, matchLabelKeys: [hash, absent]}
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - {topologyKey: zone, labelSelector: {}, mismatchLabelKeys: [hash]}
  containers: [{name: web, image: nginx}]
`)
	if c := pod.Status.Conditions; len(c) != 1 || c[0].Reason != corev1.PodReasonSchedulingGated || c[0].Status != corev1.ConditionFalse {
		t.Errorf("conditions %v", c)
	}
	want := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "hash", Operator: "In", Values: []string{"h1"}}}}
	if diff := cmp.Diff(want, pod.Spec.TopologySpreadConstraints[0].LabelSelector); diff != "" {
		t.Errorf("spread: %s", diff)
	}
	term := pod.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0]
	want = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "hash", Operator: "NotIn", Values: []string{"h1"}}}}
	if diff := cmp.Diff(want, term.LabelSelector); diff != "" {
		t.Errorf("affinity: %s", diff)
	}
	if errs := Pods.Validate(pod); len(errs) != 0 {
		t.Errorf("invalid: %v", errs)
	}
}

func TestPodUpdate(t *testing.T) {
	old := create[*corev1.Pod](t, goodPod)
	old.UID, old.ResourceVersion = "u", "1"
	old.CreationTimestamp = metav1.Unix(1, 0)
	old.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "False", ObservedGeneration: 1}}

	t.Run("spec", func(t *testing.T) {
		got := update(t, old, "", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = "nginx:2"
			p.Status.Phase = corev1.PodRunning
			p.Generation, p.UID, p.CreationTimestamp = 77, "", metav1.Unix(9, 0)
		})
		if got.Generation != 2 || got.Status.Phase != corev1.PodPending || got.UID != "u" || !got.CreationTimestamp.Equal(&old.CreationTimestamp) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("labels only", func(t *testing.T) {
		if got := update(t, old, "", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }); got.Generation != 1 {
			t.Errorf("generation %d", got.Generation)
		}
	})
	t.Run("status", func(t *testing.T) {
		got := update(t, old, "status", func(p *corev1.Pod) {
			p.Spec.NodeName = "n"
			p.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1",
				Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Ready", Status: "Unknown"}}}
		})
		if got.Spec.NodeName != "" || got.OwnerReferences != nil || got.Generation != 1 {
			t.Errorf("status wrote more than status: %v", got)
		}
		want := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}},
			QOSClass:   corev1.PodQOSBestEffort,
			Conditions: []corev1.PodCondition{{Type: "Ready", Status: "True", ObservedGeneration: 1}, {Type: "Ready", Status: "Unknown"}}}
		if diff := cmp.Diff(want, got.Status); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("status of a pod being deleted", func(t *testing.T) {
		dying := old.DeepCopy()
		dying.DeletionTimestamp, dying.DeletionGracePeriodSeconds = ptr.To(metav1.Unix(5, 0)), ptr.To[int64](30)
		got := update(t, dying, "status", func(p *corev1.Pod) { p.DeletionTimestamp, p.DeletionGracePeriodSeconds = nil, nil })
		if got.DeletionTimestamp == nil || got.DeletionGracePeriodSeconds == nil {
			t.Errorf("revived: %v", got.ObjectMeta)
		}
	})
	t.Run("ephemeral containers", func(t *testing.T) {
		got := update(t, old, "ephemeralcontainers", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}}
			p.Spec.Containers[0].Image = "evil"
			p.Labels = map[string]string{"a": "b"}
		})
		if got.Spec.Containers[0].Image != "nginx" || len(got.Spec.EphemeralContainers) != 1 || got.Generation != 2 || got.Labels != nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("resize", func(t *testing.T) {
		got := update(t, old, "resize", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("250m")}
			p.Spec.Containers[0].Image = "evil"
			p.Spec.Hostname = "evil"
		})
		c := got.Spec.Containers[0]
		if c.Image != "nginx" || got.Spec.Hostname != "" || c.Resources.Requests.Cpu().String() != "250m" || got.Generation != 2 {
			t.Errorf("got %v", got)
		}
	})
}

func TestPodGrace(t *testing.T) {
	cases := []struct {
		name      string
		node      string
		phase     corev1.PodPhase
		spec      *int64
		requested *int64
		want      int64
	}{
		{"its own", "n", corev1.PodRunning, ptr.To[int64](30), nil, 30},
		{"asked for", "n", corev1.PodRunning, ptr.To[int64](30), ptr.To[int64](5), 5},
		{"asked for none", "n", corev1.PodRunning, ptr.To[int64](30), ptr.To[int64](0), 0},
		{"negative", "n", corev1.PodRunning, ptr.To[int64](-1), nil, 1},
		{"not scheduled", "", corev1.PodPending, ptr.To[int64](30), nil, 0},
		{"succeeded", "n", corev1.PodSucceeded, ptr.To[int64](30), ptr.To[int64](9), 0},
		{"failed", "n", corev1.PodFailed, ptr.To[int64](30), nil, 0},
		{"none known", "n", corev1.PodRunning, nil, nil, 0},
	}
	for _, c := range cases {
		pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: c.node, TerminationGracePeriodSeconds: c.spec}, Status: corev1.PodStatus{Phase: c.phase}}
		if got := Pods.GracePeriod(pod, c.requested); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if Deployments.GracePeriod != nil {
		t.Error("a deployment does not linger")
	}
}

func TestDeploymentGeneration(t *testing.T) {
	old := create[*appsv1.Deployment](t, goodDeployment+"status: {replicas: 3}\n")
	if old.Generation != 1 || old.Status.Replicas != 0 {
		t.Errorf("created with generation %d, status %v", old.Generation, old.Status)
	}
	if *old.Spec.Replicas != 1 || *old.Spec.RevisionHistoryLimit != 10 || *old.Spec.ProgressDeadlineSeconds != 600 || old.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" {
		t.Errorf("defaults: %v", old.Spec)
	}
	cases := []struct {
		name, sub string
		change    func(*appsv1.Deployment)
		want      int64
	}{
		{"spec", "", func(d *appsv1.Deployment) { d.Spec.Paused = true }, 2},
		{"annotations", "", func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }, 2},
		{"labels", "", func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} }, 1},
		{"status through the front", "", func(d *appsv1.Deployment) { d.Status.Replicas = 5 }, 1},
		{"status", "status", func(d *appsv1.Deployment) { d.Status.Replicas, d.Spec.Paused = 5, true }, 1},
	}
	for _, c := range cases {
		got := update(t, old, c.sub, c.change)
		if got.Generation != c.want {
			t.Errorf("%s: generation %d, want %d", c.name, got.Generation, c.want)
		}
		if want := c.sub == "status"; (got.Status.Replicas == 5) != want {
			t.Errorf("%s: status %v", c.name, got.Status)
		}
		if c.sub == "status" && got.Spec.Paused {
			t.Errorf("%s: spec changed", c.name)
		}
	}
}

func TestScale(t *testing.T) {
	d := create[*appsv1.Deployment](t, goodDeployment)
	d.Status.Replicas = 4
	Deployments.Scale.Set(d, 7)
	spec, status, selector, err := Deployments.Scale.Get(d)
	if err != nil || spec != 7 || status != 4 || selector != "app=web" {
		t.Errorf("%d %d %q", spec, status, selector)
	}
}

func TestNamespace(t *testing.T) {
	ns := create[*corev1.Namespace](t, "{apiVersion: v1, kind: Namespace, metadata: {name: a}, status: {phase: Terminating}}")
	if ns.Status.Phase != corev1.NamespaceActive || len(ns.Spec.Finalizers) != 1 || ns.Spec.Finalizers[0] != corev1.FinalizerKubernetes ||
		ns.Labels[corev1.LabelMetadataName] != "a" {
		t.Errorf("created %v", ns)
	}
	clear := func(n *corev1.Namespace) { n.Spec.Finalizers, n.Status.Phase = nil, corev1.NamespaceTerminating }
	for sub, want := range map[string]struct {
		finalizers int
		phase      corev1.NamespacePhase
	}{"": {1, corev1.NamespaceActive}, "status": {1, corev1.NamespaceTerminating}, "finalize": {0, corev1.NamespaceActive}} {
		got := update(t, ns, sub, clear)
		if len(got.Spec.Finalizers) != want.finalizers || got.Status.Phase != want.phase {
			t.Errorf("%q: %v", sub, got)
		}
	}
	generated := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "x-"}}
	Namespaces.Default(generated)
	generated.Name = "x-1"
	Namespaces.PrepareForCreate(generated)
	if generated.Labels[corev1.LabelMetadataName] != "x-1" {
		t.Errorf("labels %v", generated.Labels)
	}
}

func TestNodeKeepsItsStatus(t *testing.T) {
	node := create[*corev1.Node](t, "{apiVersion: v1, kind: Node, metadata: {name: a}, spec: {podCIDR: 10.1.0.0/24}, status: {capacity: {cpu: 2}}}")
	if node.Status.Capacity.Cpu().Value() != 2 || len(node.Spec.PodCIDRs) != 1 {
		t.Errorf("created %v", node)
	}
	got := update(t, node, "status", func(n *corev1.Node) { n.Spec.Unschedulable = true; n.Status.Phase = "x" })
	if got.Spec.Unschedulable || got.Status.Phase != "x" {
		t.Errorf("status: %v", got)
	}
}

func TestSecretStringData(t *testing.T) {
	s := read(t, `{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: b}, data: {k: b2xk, l: bA==}, stringData: {k: new}}`).(*corev1.Secret)
	want := map[string][]byte{"k": []byte("new"), "l": []byte("l")}
	if diff := cmp.Diff(want, s.Data); diff != "" || s.StringData != nil {
		t.Errorf("stringData %v: %s", s.StringData, diff)
	}
	if s.Type != corev1.SecretTypeOpaque {
		t.Errorf("type %q", s.Type)
	}
}

func TestServiceUpdate(t *testing.T) {
	nodePort := create[*corev1.Service](t, strings.Replace(goodService, "spec:", "spec:\n  type: NodePort", 1))
	nodePort.Spec.Ports[0].NodePort = 30080
	nodePort.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	nodePort.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack)

	t.Run("manifest without allocations", func(t *testing.T) {
		got := update(t, nodePort, "", func(s *corev1.Service) {
			s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil
			s.Spec.Ports = []corev1.ServicePort{{Name: "new", Port: 81}, {Name: "http", Port: 8080}}
		})
		if got.Spec.ClusterIP != "10.96.0.7" || len(got.Spec.ClusterIPs) != 1 || got.Spec.Ports[0].NodePort != 0 || got.Spec.Ports[1].NodePort != 30080 {
			t.Errorf("got %v", got.Spec)
		}
	})
	t.Run("a node port is not given twice", func(t *testing.T) {
		got := update(t, nodePort, "", func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Name: "other", Port: 81, NodePort: 30080}, {Name: "http", Port: 80}}
		})
		if got.Spec.Ports[1].NodePort != 0 {
			t.Errorf("got %v", got.Spec.Ports)
		}
	})
	t.Run("to ClusterIP", func(t *testing.T) {
		got := update(t, nodePort, "", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
		if got.Spec.Ports[0].NodePort != 0 || got.Spec.ExternalTrafficPolicy != "" || got.Spec.ClusterIP == "" {
			t.Errorf("got %v", got.Spec)
		}
		if errs := Services.ValidateUpdate(withVersion(got), withVersion(nodePort), ""); len(errs) != 0 {
			t.Errorf("invalid: %v", errs)
		}
	})
	t.Run("to ExternalName", func(t *testing.T) {
		got := update(t, nodePort, "", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
		})
		if got.Spec.ClusterIP != "" || got.Spec.ClusterIPs != nil || got.Spec.IPFamilies != nil || got.Spec.IPFamilyPolicy != nil {
			t.Errorf("got %v", got.Spec)
		}
	})
	t.Run("a client that knows no plural", func(t *testing.T) {
		got := update(t, nodePort, "", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.9" })
		if len(got.Spec.ClusterIPs) != 1 || got.Spec.ClusterIPs[0] != "10.96.0.9" {
			t.Errorf("got %v", got.Spec.ClusterIPs)
		}
	})
	t.Run("status", func(t *testing.T) {
		got := update(t, nodePort, "status", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeClusterIP
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "x"}}
		})
		if got.Spec.Type != corev1.ServiceTypeNodePort || len(got.Status.LoadBalancer.Ingress) != 1 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("for the allocator", func(t *testing.T) {
		s := nodePort.DeepCopy()
		s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.Ports[0].NodePort = "", nil, 0
		KeepServiceAllocations(s, nodePort)
		if diff := cmp.Diff(nodePort, s); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWarnings(t *testing.T) {
	pod := create[*corev1.Pod](t, strings.Replace(goodPod, "image: nginx", "image: nginx, env: [{name: A, value: '1'}, {name: A, value: '2'}]", 1))
	got := Pods.Warnings(pod, nil)
	if len(got) != 1 || !strings.Contains(got[0], "spec.containers[0].env[1]: hides previous definition of \"A\"") {
		t.Errorf("got %q", got)
	}
	if got := Pods.Warnings(pod, pod); got != nil {
		t.Errorf("on update: %q", got)
	}
	pod.Name = "a.b"
	if got := Pods.Warnings(pod, nil); len(got) != 2 || !strings.HasPrefix(got[0], "metadata.name: this is used in the Pod's hostname") {
		t.Errorf("got %q", got)
	}
}

// Which fields a write can set is what upstream's strategies say, in every version that is served.
func TestResetFields(t *testing.T) {
	for _, tc := range []struct {
		res        *Resource
		sub        string
		kept, gone string // paths that a writer may own, and that it may not
	}{
		{ConfigMaps, "", "data", ""},
		{Pods, "", "spec.nodeName metadata.labels", "status status.phase"},
		{Pods, "status", "status.phase metadata.labels metadata.finalizers", "spec.nodeName metadata.ownerReferences metadata.deletionTimestamp"},
		{Pods, "resize", "spec.containers.c.resources.requests spec.initContainers.c.resizePolicy", "spec.containers.c.image metadata.labels spec.nodeName"},
		{Pods, "ephemeralcontainers", "spec.ephemeralContainers.c.image", "spec.containers.c.image metadata.labels"},
		{Deployments, "status", "status.replicas metadata.annotations", "spec.replicas metadata.labels"},
		{Deployments, "scale", "spec.replicas", ""},
		{ServiceCIDRs, "status", "status.conditions", "metadata.labels spec.cidrs"},
		{Namespaces, "finalize", "spec.finalizers", "status.phase"},
		{CertificateSigningRequests, "", "metadata.labels", "spec.request status.certificate"},
		{CertificateSigningRequests, "status", "status.certificate", "status.conditions spec.request"},
		{CertificateSigningRequests, "approval", "status.conditions", "status.certificate spec.request"},
		{PodCertificateRequests, "", "metadata.labels spec.signerName", "status.certificateChain"},
		{PodCertificateRequests, "status", "status.certificateChain", "metadata.labels spec.signerName"},
		{ResourceClaims, "", "metadata.labels spec.devices", "status.allocation"},
		{ResourceClaims, "status", "status.allocation", "metadata.labels spec.devices"},
		{DeviceTaintRules, "status", "status.conditions", "metadata.labels spec.taint"},
		{PodDisruptionBudgets, "status", "status.currentHealthy metadata.labels", "spec.minAvailable"},
	} {
		filters := tc.res.Resets(tc.sub)
		for _, path := range strings.Fields(tc.kept + " " + tc.gone) {
			set := fieldpath.NewSet(fieldpath.MakePathOrDie(steps(path)...))
			if f := filters[fieldpath.APIVersion(tc.res.GroupVersion().String())]; f != nil {
				set = f.Filter(set)
			}
			if want := slices.Contains(strings.Fields(tc.kept), path); set.Empty() == want {
				t.Errorf("%s/%s: a writer of %s may own it: %v, want %v", tc.res.Plural, tc.sub, path, !set.Empty(), want)
			}
		}
	}
}

// What a DELETE answers is upstream's ReturnDeletedObject.
func TestAnswersDeleted(t *testing.T) {
	var got []string
	for _, res := range Builtin {
		if res.AnswersDeleted {
			got = append(got, res.Plural)
		}
	}
	slices.Sort(got)
	want := "csidrivers csinodes deviceclasses namespaces persistentvolumeclaims persistentvolumes pods podtemplates resourceclaims resourceclaimtemplates resourcequotas " +
		"resourceslices serviceaccounts services " +
		"storageclasses volumeattachments volumeattributesclasses"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// Which resources refuse a PUT without a resourceVersion is upstream's AllowUnconditionalUpdate.
func TestConditional(t *testing.T) {
	var got []string
	for _, res := range Builtin {
		if res.Conditional {
			got = append(got, res.Plural)
		}
	}
	slices.Sort(got)
	want := "apiservices clustertrustbundles csidrivers csinodes csistoragecapacities devicetaintrules leases mutatingadmissionpolicies mutatingadmissionpolicybindings " +
		"mutatingwebhookconfigurations podcertificaterequests poddisruptionbudgets runtimeclasses storageversionmigrations validatingadmissionpolicies validatingadmissionpolicybindings " +
		"validatingwebhookconfigurations volumeattachments"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestKeys(t *testing.T) {
	key := Key{Namespace: "a", Name: "b"}
	for want, got := range map[string]string{
		"/registry/pods/a/b":           Pods.Table() + Pods.Key(key),
		"/registry/services/specs/a/b": Services.Table() + Services.Key(key),
		"/registry/ingress/a/b":        Ingresses.Table() + Ingresses.Key(key),
		"/registry/minions/b":          Nodes.Table() + Nodes.Key(Key{Name: "b"}),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSubresource(t *testing.T) {
	for _, tc := range []struct {
		res  *Resource
		name string
		kind string // "" for none
	}{
		{Pods, "status", "Pod"}, {Pods, "binding", "Binding"}, {Pods, "scale", ""}, {Deployments, "scale", "Scale"}, {ConfigMaps, "status", ""}, {Nodes, "proxy", "NodeProxyOptions"},
	} {
		s, ok := tc.res.Subresource(tc.name)
		if s.Kind.Kind != tc.kind || ok != (tc.kind != "") || ok && (s.Name != tc.name || len(s.Verbs) == 0) {
			t.Errorf("%s/%s: %+v %v", tc.res.Plural, tc.name, s, ok)
		}
	}
}

func withVersion[T Object](obj T) T {
	obj.SetResourceVersion("1")
	return obj
}

// The profile of older clients, an annotation, is that of the container: it would be without one otherwise.
func TestAppArmorAnnotations(t *testing.T) {
	pod := create[*corev1.Pod](t, `
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  annotations:
    container.apparmor.security.beta.kubernetes.io/a: localhost/strict
    container.apparmor.security.beta.kubernetes.io/b: runtime/default
    container.apparmor.security.beta.kubernetes.io/c: unconfined
    container.apparmor.security.beta.kubernetes.io/d: nonsense
spec:
  securityContext: {appArmorProfile: {type: RuntimeDefault}}
  initContainers: [{name: a, image: i}]
  containers:
  - {name: b, image: i}
  - {name: c, image: i, securityContext: {runAsUser: 7, appArmorProfile: {type: RuntimeDefault}}}
  - {name: d, image: i}
`)
	if p := pod.Spec.InitContainers[0].SecurityContext.AppArmorProfile; p.Type != corev1.AppArmorProfileTypeLocalhost || *p.LocalhostProfile != "strict" {
		t.Errorf("a has %v", p)
	}
	if c := pod.Spec.Containers; c[0].SecurityContext != nil || c[1].SecurityContext.AppArmorProfile.Type != corev1.AppArmorProfileTypeRuntimeDefault || c[2].SecurityContext != nil {
		t.Errorf("containers %+v", c)
	}
}
