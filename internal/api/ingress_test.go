package api

import (
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
)

const goodIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: default}
spec:
  rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
status: {loadBalancer: {ingress: [{ip: 10.0.0.1}]}}
`

func TestIngress(t *testing.T) {
	old := create[*networkingv1.Ingress](t, goodIngress)
	if old.Generation != 1 || len(old.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("created %v", old)
	}
	change := func(i *networkingv1.Ingress) {
		i.Spec.Rules[0].Host = "b.example"
		i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "010.0.0.1"}}
	}
	if got := update(t, old, "", change); got.Generation != 2 || got.Spec.Rules[0].Host != "b.example" || got.Status.LoadBalancer.Ingress != nil {
		t.Errorf("updated %v", got)
	}
	got := update(t, old, "status", change)
	if got.Generation != 1 || got.Spec.Rules[0].Host != "a.example" || len(got.Status.LoadBalancer.Ingress) != 1 {
		t.Errorf("status %v", got)
	}
	if w := Ingresses.StatusWarnings(got, old); len(w) != 1 {
		t.Errorf("an address with leading zeros: %q", w)
	}
	annotated := old.DeepCopy()
	annotated.Annotations = map[string]string{"kubernetes.io/ingress.class": "x"}
	if w := Ingresses.Warnings(annotated, nil); len(w) != 1 || w[0] != `annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead` {
		t.Errorf("warnings %q", w)
	}
	if w := Ingresses.Warnings(annotated, old); w != nil {
		t.Errorf("on update: %q", w)
	}
}

func TestNetworkPolicyWarnsOfOddRanges(t *testing.T) {
	p := create[*networkingv1.NetworkPolicy](t, `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: b},
spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.1/16]}}]}]}}`)
	if got := fmt.Sprint(p.Spec.PolicyTypes, p.Generation); got != "[Ingress Egress] 1" {
		t.Errorf("defaults: %s", got)
	}
	for _, old := range []Object{nil, p} {
		if w := NetworkPolicies.Warnings(p, old); len(w) != 1 || !strings.Contains(w[0], "spec.egress[0].to[0].ipBlock.except[0]") {
			t.Errorf("warnings %q", w)
		}
	}
}

func TestVolumeAttachment(t *testing.T) {
	old := create[*storagev1.VolumeAttachment](t, `{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: a},
spec: {attacher: x.example, nodeName: node, source: {persistentVolumeName: v}}, status: {attached: true}}`)
	if old.Status.Attached {
		t.Error("attached when created")
	}
	change := func(a *storagev1.VolumeAttachment) {
		a.Status.Attached, a.Spec.NodeName, a.Labels = true, "m", map[string]string{"a": "b"}
	}
	got := update(t, old, "", change)
	if got.Status.Attached || got.Labels == nil {
		t.Errorf("updated %v", got)
	}
	if errs := VolumeAttachments.ValidateUpdate(withVersion(got), withVersion(old), ""); len(errs) != 1 || errs[0].Field != "spec" {
		t.Errorf("the node changed: %v", errs)
	}
	if got := update(t, old, "status", change); !got.Status.Attached || got.Spec.NodeName != "node" || got.Labels != nil {
		t.Errorf("status %v", got)
	}
}

func TestCSIDriver(t *testing.T) {
	d := create[*storagev1.CSIDriver](t, `{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: a}, spec: {tokenRequests: [{audience: x}]}}`)
	if w := CSIDrivers.Warnings(d, nil); len(w) != 1 {
		t.Errorf("a driver that gets tokens in its volume attributes: %q", w)
	}
	if w := CSIDrivers.Warnings(d, d); w != nil {
		t.Errorf("nothing changed: %q", w)
	}
	if got := update(t, d, "", func(d *storagev1.CSIDriver) { d.Spec.TokenRequests = nil }); got.Generation != d.Generation+1 {
		t.Errorf("generation %d", got.Generation)
	}
	if n := create[*storagev1.CSINode](t, `{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: node}, spec: {drivers: [{name: a, nodeID: x, allocatable: {count: 3}}]}}`); len(CSINodes.Validate(n)) != 0 {
		t.Errorf("a node: %v", CSINodes.Validate(n))
	}
}

func TestStorageClassDefaults(t *testing.T) {
	c := create[*storagev1.StorageClass](t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: a}, provisioner: x.example}`)
	if *c.ReclaimPolicy != "Delete" || *c.VolumeBindingMode != storagev1.VolumeBindingImmediate {
		t.Errorf("defaults %v", c)
	}
	next := update(t, c, "", func(c *storagev1.StorageClass) { c.Provisioner = "y.example" })
	if errs := StorageClasses.ValidateUpdate(withVersion(next), withVersion(c), ""); len(errs) != 1 {
		t.Errorf("another provisioner: %v", errs)
	}
}
