package authz

import (
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
)

// pods is a cluster for tests, with one volume bound to claim shop/data, and requests and slices of-NODE of each node.
type pods []*corev1.Pod

func (l pods) PodsOn(node string, visit func(*corev1.Pod) bool) {
	for _, p := range l {
		if p.Spec.NodeName == node && !visit(p) {
			return
		}
	}
}

func (l pods) Get(res *api.Resource, key api.Key) (api.Object, bool) {
	if res == api.PodCertificateRequests && strings.HasPrefix(key.Name, "of-") {
		return &certificatesv1.PodCertificateRequest{Spec: certificatesv1.PodCertificateRequestSpec{NodeName: types.NodeName(strings.TrimPrefix(key.Name, "of-"))}}, true
	}
	if res == api.ResourceSlices && strings.HasPrefix(key.Name, "of-") {
		return &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{NodeName: new(strings.TrimPrefix(key.Name, "of-"))}}, true
	}
	if res == api.PersistentVolumes && strings.HasPrefix(key.Name, "local-") {
		host := corev1.NodeSelectorRequirement{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{strings.TrimPrefix(key.Name, "local-")}}
		pv := &corev1.PersistentVolume{}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: localvolume.Driver}
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{host}}}}}
		return pv, true
	}
	if res == api.VolumeAttachments && strings.HasPrefix(key.Name, "of-") {
		return &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{NodeName: strings.TrimPrefix(key.Name, "of-")}}, true
	}
	if res == api.PersistentVolumeClaims && key == (api.Key{Namespace: "shop", Name: "data"}) {
		return &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}}, true
	}
	if res != api.PersistentVolumes || key.Name != "pv" {
		return nil, false
	}
	return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "shop", Name: "data"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodeStageSecretRef: &corev1.SecretReference{Namespace: "vault", Name: "disk"},
			ControllerPublishSecretRef: &corev1.SecretReference{Namespace: "vault", Name: "controller"}}}}}, true
}

func TestNode(t *testing.T) {
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	on := func(node, name string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: "till"}}
		if change != nil {
			change(p)
		}
		return p
	}
	cluster := pods{
		on("n1", "till-1", func(p *corev1.Pod) {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{ref("pull")}
			p.Spec.Volumes = []corev1.Volume{
				{Name: "a", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}},
				{Name: "b", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "c", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("kube-root-ca.crt")}}}}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
			}
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: new("gpu")}, {Name: "b", ResourceClaimTemplateName: new("t")}}
			p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "b", ResourceClaimName: new("till-1-b-x")}}
			p.Spec.InitContainers = []corev1.Container{{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("env")}}}}}}
			p.Spec.Containers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("settings")}}}}}
		}),
		on("n1", "mirror", func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{ref("stolen")}
		}),
		on("n2", "other", func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "boss"
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{ref("theirs")}
		}),
	}
	z, err := NewNode(cluster)
	if err != nil {
		t.Fatal(err)
	}
	n1 := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
	tests := []struct {
		ask    string
		fields string
		want   bool
	}{
		{"get /secrets shop/pull", "", true},
		{"get /secrets shop/tls", "", true},
		{"get /secrets shop/env", "", true},
		{"get /secrets shop/theirs", "", false},
		{"get /secrets shop/stolen", "", false},
		{"get /secrets bank/tls", "", false},
		{"get /secrets vault/disk", "", true},
		{"get /secrets vault/controller", "", false},
		{"get storage.k8s.io/volumeattachments /of-n1", "", true},
		{"get storage.k8s.io/volumeattachments /of-n2", "", false},
		{"get storage.k8s.io/volumeattachments /none", "", false},
		{"list /secrets shop/", "", false},
		{"watch /secrets shop/", "metadata.name=tls", true},
		{"watch /secrets shop/", "metadata.name=theirs", false},
		{"watch /secrets shop/tls", "", true},
		{"update /secrets shop/tls", "", false},
		{"get /configmaps shop/kube-root-ca.crt", "", true},
		{"get /configmaps shop/settings", "", true},
		{"get /configmaps shop/other", "", false},
		{"get /persistentvolumeclaims shop/data", "", true},
		{"get /persistentvolumeclaims shop/till-1-scratch", "", true},
		{"get /persistentvolumeclaims shop/other", "", false},
		{"list /persistentvolumeclaims shop/", "metadata.name=data", true},
		{"watch /persistentvolumeclaims shop/", "metadata.name=till-1-scratch", true},
		{"watch /persistentvolumeclaims shop/", "metadata.name=other", false},
		{"watch /persistentvolumeclaims shop/", "", false},
		{"list /persistentvolumeclaims bank/", "metadata.name=data", false},
		{"delete /persistentvolumeclaims shop/data", "", false},
		{"get /persistentvolumes /pv", "", true},
		{"get /persistentvolumes /other", "", false},
		{"update /persistentvolumes /local-n1", "", true},
		{"update /persistentvolumes /local-n2", "", false},
		{"update /persistentvolumes /pv", "", false},
		{"update /persistentvolumes /none", "", false},
		{"update /persistentvolumes/status /local-n1", "", false},
		{"patch /persistentvolumes /local-n1", "", false},
		{"delete /persistentvolumes /local-n1", "", false},
		{"create /serviceaccounts/token shop/till", "", true},
		{"create /serviceaccounts/token shop/boss", "", false},
		{"get /serviceaccounts shop/till", "", true},
		{"list /pods /", "spec.nodeName=n1", true},
		{"list /pods /", "spec.nodeName=n2", false},
		{"list /pods /", "spec.nodeName!=n2", false},
		{"watch /pods /", "", false},
		{"get /pods shop/till-1", "", true},
		{"get /pods shop/other", "", false},
		{"update /pods/status shop/till-1", "", true},
		{"update /pods shop/till-1", "", false},
		{"create /pods/exec shop/till-1", "", false},
		{"create /nodes /", "", true},
		{"get /nodes /n1", "", true},
		{"get /nodes /n2", "", false},
		{"list /nodes /", "", false},
		{"watch /nodes /", "metadata.name=n1", true},
		{"patch /nodes/status /n1", "", true},
		{"patch /nodes/status /n2", "", false},
		{"delete /nodes /n1", "", false},
		{"update coordination.k8s.io/leases kube-node-lease/n1", "", true},
		{"update coordination.k8s.io/leases kube-node-lease/n2", "", false},
		{"create coordination.k8s.io/leases kube-node-lease/", "", true},
		{"create coordination.k8s.io/leases default/", "", false},
		{"watch certificates.k8s.io/clustertrustbundles /", "", true},
		{"create certificates.k8s.io/podcertificaterequests shop/", "", true},
		{"get certificates.k8s.io/podcertificaterequests shop/of-n1", "", true},
		{"get certificates.k8s.io/podcertificaterequests shop/of-n2", "", false},
		{"get certificates.k8s.io/podcertificaterequests shop/other", "", false},
		{"list certificates.k8s.io/podcertificaterequests /", "spec.nodeName=n1", true},
		{"watch certificates.k8s.io/podcertificaterequests /", "spec.nodeName=n2", false},
		{"list certificates.k8s.io/podcertificaterequests /", "", false},
		{"update certificates.k8s.io/podcertificaterequests/status shop/of-n1", "", false},
		{"delete certificates.k8s.io/podcertificaterequests shop/of-n1", "", false},
		{"get resource.k8s.io/resourceclaims shop/gpu", "", true},
		{"get resource.k8s.io/resourceclaims shop/till-1-b-x", "", true},
		{"get resource.k8s.io/resourceclaims shop/other", "", false},
		{"get resource.k8s.io/resourceclaims bank/gpu", "", false},
		{"list resource.k8s.io/resourceclaims shop/", "", false},
		{"update resource.k8s.io/resourceclaims/status shop/gpu", "", false},
		{"create resource.k8s.io/resourceslices /", "", true},
		{"get resource.k8s.io/resourceslices /of-n1", "", true},
		{"update resource.k8s.io/resourceslices /of-n1", "", true},
		{"delete resource.k8s.io/resourceslices /of-n2", "", false},
		{"patch resource.k8s.io/resourceslices /none", "", false},
		{"watch resource.k8s.io/resourceslices /", "spec.nodeName=n1", true},
		{"deletecollection resource.k8s.io/resourceslices /", "spec.nodeName=n1", true},
		{"deletecollection resource.k8s.io/resourceslices /", "spec.nodeName=n2", false},
		{"list resource.k8s.io/resourceslices /", "", false},
		{"escalate resource.k8s.io/resourceslices /of-n1", "", false},
		{"watch /services /", "", true},
		{"create /events shop/", "", true},
		{"get /metrics", "", false},
	}
	for _, tc := range tests {
		a := ask(n1, tc.ask)
		if tc.fields != "" {
			a.Fields = fields.ParseSelectorOrDie(tc.fields)
		}
		d, why, err := z.Authorize(t.Context(), a)
		if (d == Allow) != tc.want || d == Deny || err != nil {
			t.Errorf("%s %s: %v %q %v", tc.ask, tc.fields, d, why, err)
		}
	}
	for _, who := range []user.Info{jane("system:nodes"), &user.DefaultInfo{Name: "system:node:n1"}, &user.DefaultInfo{Name: "system:node:", Groups: []string{"system:nodes"}}, nil} {
		if d, _, _ := z.Authorize(t.Context(), ask(who, "get /nodes /n1")); d != NoOpinion {
			t.Errorf("%v is no node", who)
		}
	}
	if _, why, _ := z.Authorize(t.Context(), ask(n1, "get /secrets shop/theirs")); !strings.Contains(why, `no relationship found between node "n1" and this object`) {
		t.Errorf("reason %q", why)
	}
}
