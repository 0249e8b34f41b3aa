package plugins

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/google/go-cmp/cmp"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// objects is a shared copy for tests.
type objects []api.Object

func (o objects) Get(res *api.Resource, key api.Key) (found api.Object, ok bool) {
	o.List(res, key.Namespace, func(obj api.Object) bool {
		if api.KeyOf(obj) == key {
			found, ok = obj, true
		}
		return !ok
	})
	return found, ok
}

func (o objects) List(res *api.Resource, namespace string, visit func(api.Object) bool) {
	for _, obj := range o {
		if api.ByType(reflect.TypeOf(obj)) == res && (namespace == "" || obj.GetNamespace() == namespace) && !visit(obj) {
			return
		}
	}
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta("shop", "p"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func create(obj api.Object) *admission.Attributes {
	return &admission.Attributes{Operation: admission.Create, Resource: api.ByType(reflect.TypeOf(obj)), Key: api.KeyOf(obj), Object: obj}
}

// run does what the front door does with one plugin.
func run(p admission.Plugin, a *admission.Attributes) error {
	if err := p.Admit(context.Background(), a); err != nil {
		return err
	}
	return p.Validate(context.Background(), a)
}

func wantError(t *testing.T, err error, says string) {
	t.Helper()
	switch {
	case says == "" && err != nil:
		t.Error(err)
	case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
		t.Errorf("error %v\nwant  %s", err, says)
	}
}

func TestNamespaceLifecycle(t *testing.T) {
	now := metav1.Now()
	o := objects{
		&corev1.Namespace{ObjectMeta: meta("", "shop"), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}},
		&corev1.Namespace{ObjectMeta: meta("", "closing"), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "marked", DeletionTimestamp: &now}},
	}
	config := func(ns string) api.Object { return &corev1.ConfigMap{ObjectMeta: meta(ns, "m")} }
	tests := []struct {
		op   admission.Operation
		obj  api.Object
		says string
	}{
		{admission.Create, config("shop"), ""},
		{admission.Create, config("none"), `namespaces "none" not found`},
		{admission.Create, config("closing"), `configmaps "m" is forbidden: unable to create new content in namespace closing because it is being terminated`},
		{admission.Create, config("marked"), `because it is being terminated`},
		{admission.Update, config("closing"), ""},
		{admission.Delete, config("none"), ""},
		{admission.Create, &corev1.Node{ObjectMeta: meta("", "n")}, ""},
		{admission.Delete, &corev1.Namespace{ObjectMeta: meta("", "shop")}, ""},
		{admission.Delete, &corev1.Namespace{ObjectMeta: meta("", "kube-system")}, `namespaces "kube-system" is forbidden: this namespace may not be deleted`},
		{admission.Delete, &corev1.Namespace{ObjectMeta: meta("", "default")}, `this namespace may not be deleted`},
		{admission.Update, &corev1.Namespace{ObjectMeta: meta("", "default")}, ""},
	}
	for _, tc := range tests {
		a := create(tc.obj)
		a.Operation = tc.op
		err := run(NamespaceLifecycle{o}, a)
		wantError(t, err, tc.says)
		if strings.Contains(tc.says, "terminated") && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			t.Errorf("%v lacks the cause that controllers look for", err)
		}
	}
}

func TestServiceAccountMountsTheToken(t *testing.T) {
	o := objects{&corev1.ServiceAccount{ObjectMeta: meta("shop", "default"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}}}
	p := pod(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "init"}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "own", VolumeMounts: []corev1.VolumeMount{{Name: "x", MountPath: tokenMountPath}}})
	})
	if err := run(ServiceAccount{o}, create(p)); err != nil {
		t.Fatal(err)
	}
	if p.Spec.ServiceAccountName != "default" || p.Spec.DeprecatedServiceAccount != "default" || len(p.Spec.Volumes) != 1 {
		t.Fatalf("spec %+v", p.Spec)
	}
	v := p.Spec.Volumes[0]
	if !strings.HasPrefix(v.Name, "kube-api-access-") || len(v.Name) != len("kube-api-access-")+5 {
		t.Errorf("volume name %s", v.Name)
	}
	mode, seconds := int32(0o644), int64(3607)
	want := &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: &seconds, Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
	}}
	if diff := cmp.Diff(want, v.Projected); diff != "" {
		t.Error(diff)
	}
	mount := []corev1.VolumeMount{{Name: v.Name, ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}}
	for i, c := range append(slices.Clone(p.Spec.InitContainers), p.Spec.Containers...) {
		if i < 2 && !cmp.Equal(c.VolumeMounts, mount) || i == 2 && len(c.VolumeMounts) != 1 {
			t.Errorf("container %s mounts %+v", c.Name, c.VolumeMounts)
		}
	}
	if !slices.Equal(p.Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "pull"}}) {
		t.Errorf("pull secrets %v", p.Spec.ImagePullSecrets)
	}
	if again := p.DeepCopy(); run(ServiceAccount{o}, create(again)) != nil || !cmp.Equal(again, p) {
		t.Error("a second pass changes the pod")
	}
}

func TestServiceAccount(t *testing.T) {
	no, yes := false, true
	o := objects{
		&corev1.ServiceAccount{ObjectMeta: meta("shop", "default")},
		&corev1.ServiceAccount{ObjectMeta: meta("shop", "silent"), AutomountServiceAccountToken: &no},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "strict", Annotations: map[string]string{mountableSecrets: "true"}},
			Secrets: []corev1.ObjectReference{{Name: "listed"}}},
	}
	secretVolume := func(name string) []corev1.Volume {
		return []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}}}}
	}
	mirror := map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	tests := []struct {
		name    string
		pod     *corev1.Pod
		volumes int
		says    string
	}{
		{"default", pod(nil), 1, ""},
		{"pod says no", pod(func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &no }), 0, ""},
		{"account says no", pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "silent" }), 0, ""},
		{"pod wins", pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "silent", &yes }), 1, ""},
		{"no such account", pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" }), 0,
			`pods "p" is forbidden: error looking up service account shop/nobody: serviceaccount "nobody" not found`},
		{"no such namespace's default", pod(func(p *corev1.Pod) { p.Namespace = "bank" }), 0,
			`pods "p" is forbidden: error looking up service account bank/default: serviceaccount "default" not found`},
		{"listed secret", pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.Volumes = "strict", secretVolume("listed") }), 2, ""},
		{"secret not listed", pod(func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.Volumes = "strict", secretVolume("other") }), 2,
			`volume with secret.secretName="other" is not allowed because service account strict does not reference that secret`},
		{"mirror", pod(func(p *corev1.Pod) { p.Annotations = mirror }), 0, ""},
		{"mirror with account", pod(func(p *corev1.Pod) { p.Annotations, p.Spec.ServiceAccountName = mirror, "default" }), 0, "a mirror pod may not reference service accounts"},
		{"mirror with secret", pod(func(p *corev1.Pod) { p.Annotations, p.Spec.Volumes = mirror, secretVolume("x") }), 1, "a mirror pod may not reference secrets"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			wantError(t, run(ServiceAccount{o}, create(tc.pod)), tc.says)
			if len(tc.pod.Spec.Volumes) != tc.volumes {
				t.Errorf("volumes %+v", tc.pod.Spec.Volumes)
			}
		})
	}
}

func TestPriority(t *testing.T) {
	never, lower := corev1.PreemptNever, corev1.PreemptLowerPriority
	class := func(name string, value int32, def bool, policy *corev1.PreemptionPolicy) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: meta("", name), Value: value, GlobalDefault: def, PreemptionPolicy: policy}
	}
	high := class("high", 1000, false, &lower)
	def := class("usual", 7, true, &never)
	num := func(n int32) *int32 { return &n }
	tests := []struct {
		name   string
		o      objects
		class  string
		set    *int32
		want   int32
		policy corev1.PreemptionPolicy
		named  string
		says   string
	}{
		{"nothing", nil, "", nil, 0, lower, "", ""},
		{"a class", objects{high, def}, "high", nil, 1000, lower, "high", ""},
		{"the default", objects{high, def}, "", nil, 7, never, "usual", ""},
		{"the lower of two defaults", objects{class("z", 9, true, &lower), def}, "", nil, 7, never, "usual", ""},
		{"no such class", nil, "high", nil, 0, "", "", `pods "p" is forbidden: no PriorityClass with name high was found`},
		{"the right number", objects{high}, "high", num(1000), 1000, lower, "high", ""},
		{"a wrong number", objects{high}, "high", num(1), 0, "", "", "the integer value of priority (1) must not be provided in pod spec; priority admission controller computed 1000"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			p := pod(func(p *corev1.Pod) { p.Spec.PriorityClassName, p.Spec.Priority = tc.class, tc.set })
			err := run(Priority{tc.o}, create(p))
			wantError(t, err, tc.says)
			if err == nil && (*p.Spec.Priority != tc.want || *p.Spec.PreemptionPolicy != tc.policy || p.Spec.PriorityClassName != tc.named) {
				t.Errorf("%s %d %s", p.Spec.PriorityClassName, *p.Spec.Priority, *p.Spec.PreemptionPolicy)
			}
		})
	}
	wantError(t, run(Priority{objects{def}}, create(class("another", 1, true, nil))), "PriorityClass usual is already marked as default. Only one default can exist")
	wantError(t, run(Priority{objects{def}}, create(def.DeepCopy())), "")
	// An update by someone who does not know the field keeps it.
	p := pod(nil)
	a := create(p)
	a.Operation, a.Old = admission.Update, pod(func(p *corev1.Pod) { p.Spec.Priority = num(5) })
	if wantError(t, run(Priority{}, a), ""); p.Spec.Priority == nil || *p.Spec.Priority != 5 {
		t.Error("the update lost the priority")
	}
}

func TestDefaultTolerationSeconds(t *testing.T) {
	five, ten := int64(300), int64(10)
	def := func(key string, s *int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: s}
	}
	ready, reach := corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable
	all := corev1.Toleration{Operator: corev1.TolerationOpExists}
	other := corev1.Toleration{Key: ready, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
	tests := []struct{ have, want []corev1.Toleration }{
		{nil, []corev1.Toleration{def(ready, &five), def(reach, &five)}},
		{[]corev1.Toleration{def(reach, &ten)}, []corev1.Toleration{def(reach, &ten), def(ready, &five)}},
		{[]corev1.Toleration{all}, []corev1.Toleration{all}},
		{[]corev1.Toleration{other}, []corev1.Toleration{other, def(ready, &five), def(reach, &five)}},
	}
	for _, tc := range tests {
		p := pod(func(p *corev1.Pod) { p.Spec.Tolerations = tc.have })
		wantError(t, run(DefaultTolerationSeconds{}, create(p)), "")
		if diff := cmp.Diff(tc.want, p.Spec.Tolerations); diff != "" {
			t.Error(diff)
		}
	}
}

func TestTaintNodesByCondition(t *testing.T) {
	n := &corev1.Node{ObjectMeta: meta("", "n")}
	for range 2 {
		wantError(t, run(TaintNodesByCondition{}, create(n)), "")
		if want := []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}}; !cmp.Equal(n.Spec.Taints, want) {
			t.Errorf("taints %v", n.Spec.Taints)
		}
	}
}

func TestRuntimeClass(t *testing.T) {
	overhead := corev1.ResourceList{"memory": resource.MustParse("64Mi")}
	o := objects{
		&nodev1.RuntimeClass{ObjectMeta: meta("", "vm"), Handler: "vm", Overhead: &nodev1.Overhead{PodFixed: overhead},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"kvm": "yes"}, Tolerations: []corev1.Toleration{{Key: "kvm"}}}},
		&nodev1.RuntimeClass{ObjectMeta: meta("", "plain"), Handler: "runc"},
	}
	named := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.RuntimeClassName = &name
			if change != nil {
				change(p)
			}
		})
	}
	p := named("vm", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} })
	wantError(t, run(RuntimeClass{o}, create(p)), "")
	if !cmp.Equal(p.Spec.Overhead, overhead) || !cmp.Equal(p.Spec.NodeSelector, map[string]string{"a": "b", "kvm": "yes"}) || len(p.Spec.Tolerations) != 1 {
		t.Errorf("spec %+v", p.Spec)
	}
	if wantError(t, run(RuntimeClass{o}, create(p)), ""); len(p.Spec.Tolerations) != 1 {
		t.Error("a second pass changes the pod")
	}
	wantError(t, run(RuntimeClass{o}, create(pod(nil))), "")
	wantError(t, run(RuntimeClass{o}, create(named("none", nil))), `pod rejected: RuntimeClass "none" not found`)
	wantError(t, run(RuntimeClass{o}, create(named("vm", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kvm": "no"} }))), "conflict: runtimeClass.scheduling.nodeSelector[kvm] = yes; pod.spec.nodeSelector[kvm] = no")
	wantError(t, run(RuntimeClass{o}, create(named("plain", func(p *corev1.Pod) { p.Spec.Overhead = overhead }))), "Pod Overhead set without corresponding RuntimeClass defined Overhead")
	wantError(t, run(RuntimeClass{o}, create(named("vm", func(p *corev1.Pod) { p.Spec.Overhead = corev1.ResourceList{"memory": resource.MustParse("1Mi")} }))), "doesn't match")
}

func TestLimitRanger(t *testing.T) {
	list := func(kv ...string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for i := 0; i < len(kv); i += 2 {
			out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
		}
		return out
	}
	limits := func(items ...corev1.LimitRangeItem) objects {
		return objects{&corev1.LimitRange{ObjectMeta: meta("shop", "l"), Spec: corev1.LimitRangeSpec{Limits: items}},
			&corev1.LimitRange{ObjectMeta: meta("bank", "l"), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: "Container", Max: list("cpu", "1m")}}}}}
	}
	with := func(requests, limits corev1.ResourceList) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		})
	}
	p := pod(func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Limits: list("memory", "1Gi")}}}
	})
	wantError(t, run(LimitRanger{limits(corev1.LimitRangeItem{Type: "Container", DefaultRequest: list("memory", "10Mi", "cpu", "100m"), Default: list("memory", "20Mi")})}, create(p)), "")
	c := p.Spec.Containers[0].Resources
	if !cmp.Equal(c.Requests, list("cpu", "100m", "memory", "10Mi")) || !cmp.Equal(c.Limits, list("memory", "20Mi")) || !cmp.Equal(p.Spec.InitContainers[0].Resources.Limits, list("memory", "1Gi")) {
		t.Errorf("resources %+v", p.Spec)
	}
	if got, want := p.Annotations["kubernetes.io/limit-ranger"], "LimitRanger plugin set: cpu, memory request for container c; memory limit for container c; cpu, memory request for init container i"; got != want {
		t.Errorf("annotation %q", got)
	}

	claim := func(size string) api.Object {
		return &corev1.PersistentVolumeClaim{ObjectMeta: meta("shop", "d"), Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: list("storage", size)}}}
	}
	tests := []struct {
		item corev1.LimitRangeItem
		obj  api.Object
		says string
	}{
		{corev1.LimitRangeItem{Type: "Container", Max: list("cpu", "2")}, with(list("cpu", "1"), list("cpu", "2")), ""},
		{corev1.LimitRangeItem{Type: "Container", Max: list("cpu", "2")}, with(nil, list("cpu", "2100m")), `pods "p" is forbidden: maximum cpu usage per Container is 2, but limit is 2100m`},
		{corev1.LimitRangeItem{Type: "Container", Max: list("cpu", "2")}, with(list("cpu", "1"), nil), "maximum cpu usage per Container is 2.  No limit is specified"},
		{corev1.LimitRangeItem{Type: "Container", Min: list("memory", "1Mi")}, with(nil, nil), "minimum memory usage per Container is 1Mi.  No request is specified"},
		{corev1.LimitRangeItem{Type: "Container", Min: list("memory", "1Mi")}, with(list("memory", "1Ki"), nil), "minimum memory usage per Container is 1Mi, but request is 1Ki"},
		{corev1.LimitRangeItem{Type: "Pod", Max: list("cpu", "1")}, with(list("cpu", "1"), list("cpu", "1")), ""},
		{corev1.LimitRangeItem{Type: "Pod", Max: list("cpu", "1")}, with(list("cpu", "1500m"), list("cpu", "1500m")), "maximum cpu usage per Pod is 1, but limit is 1500m"},
		{corev1.LimitRangeItem{Type: "Container", MaxLimitRequestRatio: list("cpu", "2")}, with(list("cpu", "1"), list("cpu", "2")), ""},
		{corev1.LimitRangeItem{Type: "Container", MaxLimitRequestRatio: list("cpu", "2")}, with(list("cpu", "1"), list("cpu", "3")), "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"},
		{corev1.LimitRangeItem{Type: "PersistentVolumeClaim", Max: list("storage", "1Gi")}, claim("1Gi"), ""},
		{corev1.LimitRangeItem{Type: "PersistentVolumeClaim", Max: list("storage", "1Gi")}, claim("2Gi"), `persistentvolumeclaims "d" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi`},
	}
	for _, tc := range tests {
		wantError(t, run(LimitRanger{limits(tc.item)}, create(tc.obj)), tc.says)
	}
}

func TestNodeRestriction(t *testing.T) {
	on := func(node string) *corev1.Pod {
		return pod(func(p *corev1.Pod) { p.Spec.NodeName, p.UID = node, "pod-1" })
	}
	o := objects{on("n1"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "node-1"}}}
	yes := true
	mirror := func(change func(*corev1.Pod)) *corev1.Pod {
		return pod(func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "node-1", Controller: &yes}}
			p.Spec.NodeName = "n1"
			if change != nil {
				change(p)
			}
		})
	}
	labelled := func(name, key string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{key: "x"}}}
	}
	tainted := labelled("n1", "kubernetes.io/hostname")
	tainted.Spec.Taints = []corev1.Taint{{Key: "x"}}
	attrs := func(op admission.Operation, sub string, obj, old api.Object) *admission.Attributes {
		of := obj
		if of == nil {
			of = old
		}
		a := create(of)
		a.Operation, a.Subresource, a.Object, a.Old = op, sub, obj, old
		return a
	}
	tests := []struct {
		name string
		a    *admission.Attributes
		says string
	}{
		{"own pod's status", attrs(admission.Update, "status", on("n1"), on("n1")), ""},
		{"another's pod's status", attrs(admission.Update, "status", on("n2"), on("n2")), `node "n1" can only update pod status for pods with spec.nodeName set to itself`},
		{"delete own pod", attrs(admission.Delete, "", nil, on("n1")), ""},
		{"delete another's pod", attrs(admission.Delete, "", nil, on("n2")), `node "n1" can only delete pods with spec.nodeName set to itself`},
		{"create a pod", attrs(admission.Create, "", on("n1"), nil), "can only create mirror pods"},
		{"create a mirror pod", attrs(admission.Create, "", mirror(nil), nil), ""},
		{"mirror pod elsewhere", attrs(admission.Create, "", mirror(func(p *corev1.Pod) { p.Spec.NodeName = "n2" }), nil), "spec.nodeName set to itself"},
		{"mirror pod of another", attrs(admission.Create, "", mirror(func(p *corev1.Pod) { p.OwnerReferences[0].Name = "n2" }), nil), "owner reference set to itself"},
		{"mirror pod of a node before", attrs(admission.Create, "", mirror(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "node-0" }), nil), "UID mismatch"},
		{"mirror pod with a secret", attrs(admission.Create, "", mirror(func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}
		}), nil), "can not create pods that reference secrets"},
		{"change a pod", attrs(admission.Update, "", on("n1"), on("n1")), `unexpected operation "UPDATE"`},
		{"own labels", attrs(admission.Create, "", labelled("n1", "topology.kubernetes.io/zone"), nil), ""},
		{"free labels", attrs(admission.Create, "", labelled("n1", "example.com/x"), nil), ""},
		{"restricted label", attrs(admission.Create, "", labelled("n1", "node-restriction.kubernetes.io/x"), nil), "not allowed to set the following labels: node-restriction.kubernetes.io/x"},
		{"restricted subdomain", attrs(admission.Create, "", labelled("n1", "a.node-restriction.kubernetes.io/x"), nil), "not allowed to set"},
		{"role label", attrs(admission.Update, "", labelled("n1", "node-role.kubernetes.io/control-plane"), labelled("n1", "a")), "is not allowed to modify labels: node-role.kubernetes.io/control-plane"},
		{"another node", attrs(admission.Update, "status", labelled("n2", "a"), labelled("n2", "a")), `node "n1" is not allowed to modify node "n2"`},
		{"taints", attrs(admission.Update, "", tainted, labelled("n1", "kubernetes.io/hostname")), "not allowed to modify taints"},
	}
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			tc.a.User = node
			wantError(t, run(NodeRestriction{Reader: o}, tc.a), tc.says)
			tc.a.User = &user.DefaultInfo{Name: "system:node:n1"} // not in the group
			wantError(t, run(NodeRestriction{Reader: o}, tc.a), "")
		})
	}
}
