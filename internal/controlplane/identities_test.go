package controlplane

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelabels "k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/store"
)

// rights asks RBAC about every write that a part of the control plane makes.
type rights struct {
	mu      sync.Mutex
	rbac    *authz.RBAC
	seen    map[string]bool
	refused map[string]bool
}

func (*rights) Name() string                                       { return "rights" }
func (*rights) Admit(context.Context, *admission.Attributes) error { return nil }

func (r *rights) Validate(ctx context.Context, a *admission.Attributes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.User == nil {
		r.refused[fmt.Sprintf("nobody: %s %s/%s %s", a.Operation, a.Resource.Plural, a.Subresource, a.Key)] = true
		return nil
	}
	who := a.User.GetName()
	if strings.HasPrefix(who, "system:apiserver") {
		return nil
	}
	r.seen[who] = true
	verbs := map[admission.Operation][]string{admission.Create: {"create"}, admission.Update: {"update", "patch"}, admission.Delete: {"delete", "deletecollection"}}
	for _, verb := range verbs[a.Operation] {
		d, _, err := r.rbac.Authorize(ctx, &authz.Attributes{User: a.User, Verb: verb, IsResource: true, Group: a.Resource.Group, Version: a.Resource.Version,
			Resource: a.Resource.Plural, Subresource: a.Subresource, Namespace: a.Key.Namespace, Name: a.Key.Name})
		if err == nil && d == authz.Allow {
			return nil
		}
	}
	r.refused[fmt.Sprintf("%s: %s %s/%s", who, a.Operation, a.Resource.Plural, a.Subresource)] = true
	return nil
}

// Whatever a controller or the scheduler writes, its service account is allowed by the default roles, and nobody writes without a name.
func TestControllersHaveTheRightsThatTheyUse(t *testing.T) {
	watch := &rights{seen: map[string]bool{}, refused: map[string]bool{}}
	p, err := New(Config{Backend: store.NewMem(), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), CA: []byte("ca"),
		Initial: Params{ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
		Log:     slog.New(slog.DiscardHandler), further: []admission.Plugin{watch}})
	if err != nil {
		t.Fatal(err)
	}
	watch.rbac = p.RBAC
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-p.Ready()

	live(t, p.Client)
	want := []string{"deployment-controller", "replicaset-controller", "statefulset-controller", "daemon-set-controller", "replication-controller", "job-controller", "cronjob-controller", "ttl-after-finished-controller", "endpointslice-controller", "endpoint-controller", "disruption-controller", "resourcequota-controller",
		"namespace-controller", "generic-garbage-collector", "root-ca-cert-publisher", "service-account-controller", "node-controller", "clusterrole-aggregation-controller", "service-cidrs-controller",
		"persistent-volume-binder", "pvc-protection-controller"}
	await(t, func() string {
		watch.mu.Lock()
		defer watch.mu.Unlock()
		if !watch.seen["system:kube-scheduler"] {
			return "the scheduler has written nothing"
		}
		for _, name := range want {
			if !watch.seen["system:serviceaccount:kube-system:"+name] {
				return name + " has written nothing"
			}
		}
		return ""
	})
	watch.mu.Lock()
	defer watch.mu.Unlock()
	for what := range watch.refused {
		t.Error(what)
	}
}

// live makes a namespace with some of everything, lets it run, and deletes it.
func live(t *testing.T, c client.Client) {
	t.Helper()
	labels, state, daemon := map[string]string{"app": "web"}, map[string]string{"app": "state"}, map[string]string{"app": "daemon"}
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "web"}
	two, one := int32(2), int32(1)
	capacity := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("100")}
	once := corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for _, o := range []api.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelHostname: "n"}}, Status: corev1.NodeStatus{Capacity: capacity, Allocatable: capacity,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}}},
		&corev1.ResourceQuota{ObjectMeta: meta, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("10")}}},
		&policyv1.PodDisruptionBudget{ObjectMeta: meta, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}},
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}}},
		&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}},
		&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "old"}, Spec: corev1.ReplicationControllerSpec{Replicas: &one, Selector: map[string]string{"app": "old"},
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "old"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}},
		&appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: state},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: state}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}},
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
				WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}}}}},
		&appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: daemon},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: daemon}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}},
		&batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "over"}, Spec: batchv1.JobSpec{Completions: new(int32), TTLSecondsAfterFinished: new(int32), Template: once}},
		&batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "often"}, Spec: batchv1.CronJobSpec{Schedule: "@every 1s",
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}}}},
	} {
		if _, err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	pods := func() []*corev1.Pod {
		list, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: "shop", Index: client.IndexNode, Value: "n", Labels: kubelabels.SelectorFromSet(labels)})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	await(t, func() string {
		if n := len(pods()); n < 2 {
			return fmt.Sprintf("%d pods are bound", n)
		}
		return ""
	})
	for _, pod := range pods() {
		_, err := client.Mutate(t.Context(), c, api.KeyOf(pod), "status", func(p *corev1.Pod) bool {
			p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, "10.244.0.2", []corev1.PodIP{{IP: "10.244.0.2"}}
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() string {
		d, err := client.Get[*appsv1.Deployment](t.Context(), c, api.KeyOf(&meta))
		if err != nil || d.Status.AvailableReplicas != two {
			return fmt.Sprintf("the deployment has %d available pods: %v", d.Status.AvailableReplicas, err)
		}
		return ""
	})
	if _, err := client.Mutate(t.Context(), c, api.KeyOf(&meta), "", func(d *appsv1.Deployment) bool { d.Spec.Replicas = &one; return true }); err != nil {
		t.Fatal(err)
	}
	background := metav1.DeletePropagationForeground
	if err := client.Delete[*appsv1.Deployment](t.Context(), c, api.KeyOf(&meta), metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete[*corev1.Namespace](t.Context(), c, api.Key{Name: "shop"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// await waits until wrong says nothing.
func await(t *testing.T, wrong func() string) {
	t.Helper()
	last := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if last = wrong(); last == "" {
			return
		}
	}
	t.Fatal(last)
}
