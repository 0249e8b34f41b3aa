package old

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"
)

// start runs a Knarr server with hollow nodes until the test ends.
func start(t *testing.T) *rest.Config {
	t.Helper()
	knarr, err := filepath.Abs("../../../bin/knarr")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(knarr); err != nil {
		t.Skip("knarr has not been built: make build")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	cmd := exec.Command(knarr, "server", "--no-agent", "--hollow-nodes", "1", "--node-ip", "192.0.2.1", "--data-dir", filepath.Join(dir, "data"), "--listen", address, "--write-kubeconfig", kubeconfig, "--log-level", "warn")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	until(t, "the API is ready", func() bool { _, err := os.Stat(kubeconfig); return err == nil })
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

// TestOldClient: typed and untyped clients, in protobuf and JSON, an informer, apply, scale, eviction and leader election.
func TestOldClient(t *testing.T) {
	config := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary := rest.CopyConfig(config)
	binary.ContentType, binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	api := kubernetes.NewForConfigOrDie(binary)

	factory := informers.NewSharedInformerFactory(api, 0)
	pods := factory.Core().V1().Pods()
	seen := make(chan string, 100)
	if _, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(o any) { seen <- o.(*corev1.Pod).Name }}); err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())

	chosen := map[string]string{"app": "web"}
	deployment := applyappsv1.Deployment("web", "default").WithSpec(applyappsv1.DeploymentSpec().WithReplicas(2).
		WithSelector(applymetav1.LabelSelector().WithMatchLabels(chosen)).
		WithTemplate(applycorev1.PodTemplateSpec().WithLabels(chosen).WithSpec(applycorev1.PodSpec().WithContainers(applycorev1.Container().WithName("web").WithImage("web:1")))))
	if _, err := api.AppsV1().Deployments("default").Apply(ctx, deployment, metav1.ApplyOptions{FieldManager: "old"}); err != nil {
		t.Fatal(err)
	}
	ready := func(want int32) func() bool {
		return func() bool {
			d, err := api.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return d.Status.ReadyReplicas == want
		}
	}
	until(t, "two replicas are ready", ready(2))
	select {
	case <-seen:
	case <-ctx.Done():
		t.Fatal("the informer saw no pod")
	}
	until(t, "the informer has both", func() bool {
		all, err := pods.Lister().Pods("default").List(labels.SelectorFromSet(chosen))
		return err == nil && len(all) == 2
	})

	scale, err := api.AppsV1().Deployments("default").GetScale(ctx, "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale.Spec.Replicas = 3
	if _, err := api.AppsV1().Deployments("default").UpdateScale(ctx, "web", scale, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "three replicas are ready", ready(3))
	if _, err := api.AppsV1().Deployments("default").Apply(ctx, deployment, metav1.ApplyOptions{FieldManager: "other"}); !apierrors.IsConflict(err) {
		t.Errorf("applying what somebody else has scaled: %v", err)
	}

	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		d, err := api.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		d.Spec.Template.Spec.Containers[0].Image = "web:2"
		_, err = api.AppsV1().Deployments("default").Update(ctx, d, metav1.UpdateOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	until(t, "the new image is rolled out", func() bool {
		d, err := api.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		return err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == 3 && d.Status.ReadyReplicas == 3 && d.Status.Replicas == 3
	})

	groups, err := restmapper.GetAPIGroupResources(api.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := restmapper.NewDiscoveryRESTMapper(groups).RESTMapping(schema.GroupKind{Group: "apps", Kind: "ReplicaSet"})
	if err != nil {
		t.Fatal(err)
	}
	var sets *unstructured.UnstructuredList
	if sets, err = dynamic.NewForConfigOrDie(config).Resource(mapping.Resource).Namespace("default").List(ctx, metav1.ListOptions{Limit: 1}); err != nil || len(sets.Items) != 1 || sets.GetContinue() == "" {
		t.Errorf("a page of one ReplicaSet of two: %v", err)
	}

	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, "default", "old", api.CoreV1(), api.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: "me"})
	if err != nil {
		t.Fatal(err)
	}
	leading, stop := context.WithCancel(ctx)
	defer stop()
	led := make(chan struct{})
	leaderelection.RunOrDie(leading, leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(led); stop() }, OnStoppedLeading: func() {}},
	})
	select {
	case <-led:
	default:
		t.Error("nobody was elected")
	}

	foreground := metav1.DeletePropagationForeground
	if err := api.AppsV1().Deployments("default").Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		t.Fatal(err)
	}
	until(t, "the Deployment and its pods are gone", func() bool {
		_, err := api.AppsV1().Deployments("default").Get(ctx, "web", metav1.GetOptions{})
		all, _ := pods.Lister().List(labels.Everything())
		return apierrors.IsNotFound(err) && len(all) == 0
	})
}
