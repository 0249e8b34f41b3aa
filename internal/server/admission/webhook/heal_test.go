package webhook_test

import (
	"context"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission/webhook"
	"github.com/knarr-io/knarr/internal/server/request"
)

// controller is the context of a controller in the server.
func controller(name string) context.Context {
	return request.With(context.Background(), &request.Info{InProcess: true, User: &user.DefaultInfo{Name: "system:serviceaccount:kube-system:" + name}})
}

func node(name string) context.Context { return as("system:node:"+name, user.NodesGroup) }

func hooksPod(ns string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "hook-"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

func lease(ns, name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
}

// TestHealing: while nobody answers for a webhook that refuses what it cannot be asked about, those who may bring its back end to life again
// pass it, where that helps - and nobody else, nowhere else, and not where its owner does not want that.
func TestHealing(t *testing.T) {
	c := begin(t)
	for _, ns := range []string{"hooks", "kube-node-lease"} {
		clienttest.Create(t, c.Local, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	c.owners["admin"] = true
	at := admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "hooks", Name: "hook"}}
	conf := c.validating(t, "a", at, func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = of("*/*") })
	replicas := int32(1)
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "hooks", GenerateName: "d-"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: hooksPod("").Spec},
	}}
	secret := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "x-"}}
	forged := request.With(context.Background(), &request.Info{User: &user.DefaultInfo{Name: "system:serviceaccount:kube-system:replicaset-controller"}})
	for _, tc := range []struct {
		name   string
		ctx    context.Context
		obj    api.Object
		passes bool
	}{
		{"a controller makes its pods", controller("replicaset-controller"), hooksPod("hooks"), true},
		{"a controller makes other pods", controller("replicaset-controller"), hooksPod("default"), false},
		{"a user makes its pods", as("jane"), hooksPod("hooks"), false},
		{"who calls himself a controller", forged, hooksPod("hooks"), false},
		{"who may switch it off makes its Deployment", as("admin"), deployment, true},
		{"who may switch it off makes other things", as("admin"), secret, false},
		{"an agent renews its lease", node("n1"), lease("kube-node-lease", "n1"), true},
		{"an agent writes another's lease", node("n1"), lease("kube-node-lease", "n2"), false},
		{"a user writes a node's lease", as("jane"), lease("kube-node-lease", "n3"), false},
		{"an agent without the group", as("system:node:n4"), lease("kube-node-lease", "n4"), false},
		{"an agent registers its node", node("n1"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, true},
		{"an agent makes a config map", node("n1"), secret, false},
	} {
		_, err := c.registry.Create(tc.ctx, c.registry.Served().Now().Of(tc.obj), tc.obj.DeepCopyObject().(api.Object), metav1.CreateOptions{})
		if tc.passes && err != nil || !tc.passes && (err == nil || !strings.Contains(err.Error(), `service "hook" not found`)) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if n := c.count(t, "knarr_admission_webhook_healing_writes_total"); n != "4" {
		t.Errorf("counted %s", n)
	}
	never := conf.DeepCopy()
	never.Annotations = map[string]string{"knarr.io/webhook-healing": "never"}
	updated, err := c.Update(as("admin"), never, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(controller("replicaset-controller"), hooksPod("hooks")); err == nil {
		t.Error("passed a webhook whose owner does not want that")
	}
	// Whatever is dead, the configuration can be deleted by those who may.
	if err := c.Delete(as("admin"), api.ValidatingWebhookConfigurations, api.KeyOf(updated), metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.create(as("jane"), "x"); err != nil {
		t.Error(err)
	}
}

// TestNoHealingWhileAlive: a back end that is there is asked by all, and what it says counts.
func TestNoHealingWhileAlive(t *testing.T) {
	c := begin(t)
	b := serve(t, map[string]answer{"/": refuse})
	c.validating(t, "a", b.config("/"), func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = of("leases") })
	clienttest.Create(t, c.Local, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-node-lease"}})
	if _, err := c.Create(node("n1"), lease("kube-node-lease", "n1")); err == nil || !strings.Contains(err.Error(), "denied the request") {
		t.Errorf("got %v", err)
	}
}

// TestBreaker: a webhook that fails time and again is asked rarely, which is news; then one that answers is asked by all, which is news, too. Nodes
// stay alive meanwhile.
func TestBreaker(t *testing.T) {
	c := begin(t)
	b := serve(t, nil)
	second := int32(1)
	c.validating(t, "a", b.config("/"), func(w *admissionregistrationv1.ValidatingWebhook) {
		w.Rules, w.TimeoutSeconds = of("configmaps", "leases"), &second
		w.ClientConfig.CABundle = serve(t, nil).ca
	})
	clienttest.Create(t, c.Local, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-node-lease"}})
	news := make(chan webhook.Outage, 4)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.webhooks.Run(ctx, func(_ context.Context, o webhook.Outage) { news <- o }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for range 5 {
		if _, err := c.create(as("jane"), "x"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Fatalf("got %v", err)
		}
	}
	if o := <-news; o.Err == nil || o.Webhook != "a.example.com" || !o.Refuses || o.Configuration.GetName() != "a" || o.Backend != b.URL+"/" {
		t.Errorf("news: %+v", o)
	}
	_, err := c.create(as("jane"), "x")
	if err == nil || !strings.Contains(err.Error(), "it has failed 5 times in a row") || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Create(node("n1"), lease("kube-node-lease", "n1")); err != nil {
		t.Errorf("a lease: %v", err)
	}
	conf, err := c.Get(t.Context(), api.ValidatingWebhookConfigurations, api.Key{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	mended := conf.(*admissionregistrationv1.ValidatingWebhookConfiguration).DeepCopy()
	mended.Webhooks[0].ClientConfig.CABundle = b.ca
	if _, err := c.Update(as("admin"), mended, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.create(as("jane"), "x"); err != nil {
		t.Errorf("another target has a breaker of its own: %v", err)
	}
}

// TestDeadlineIsShared: webhooks that hang and are passed over leave time for each other and for the write.
func TestDeadlineIsShared(t *testing.T) {
	c := begin(t)
	b := serve(t, nil)
	for _, name := range []string{"a", "b", "c"} {
		c.mutating(t, name, b.config("/hang"), func(w *admissionregistrationv1.MutatingWebhook) { w.FailurePolicy = &ignore })
	}
	ctx, cancel := context.WithTimeout(as("jane"), 5*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := c.create(ctx, "x"); err != nil || time.Since(began) > 4*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if _, paths := b.requests(); len(paths) != 3 {
		t.Errorf("asked %v", paths)
	}
	c.mutating(t, "d", b.config("/hang"))
	ctx, cancel = context.WithTimeout(as("jane"), 3*time.Second)
	defer cancel()
	if _, err := c.create(ctx, "y"); err == nil || !strings.Contains(err.Error(), `failed calling webhook "d.example.com"`) {
		t.Errorf("one that is not passed over: %v", err)
	}
}
