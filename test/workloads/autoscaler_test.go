package workloads

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/scale"
	upstream "k8s.io/kubernetes/pkg/controller/podautoscaler"
	upstreammetrics "k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	metricsclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/podautoscaler"
)

// What kube-controller-manager is started with, but for the time between two looks.
const (
	downscaleStabilization = 5 * time.Minute
	tolerance              = 0.1
	cpuInitialization      = 5 * time.Minute
	initialReadiness       = 30 * time.Second
)

func kubernetesAutoscaler(f *figures, period time.Duration) func(context.Context, clientset.Interface, informers.SharedInformerFactory) (func(context.Context, int), error) {
	return func(ctx context.Context, kube clientset.Interface, factory informers.SharedInformerFactory) (func(context.Context, int), error) {
		measures, err := metricsclient.NewForConfig(&rest.Config{Host: "http://metrics", Transport: f})
		if err != nil {
			return nil, err
		}
		mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{appsv1.SchemeGroupVersion})
		mapper.Add(appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), meta.RESTScopeNamespace)
		asked := upstreammetrics.NewRESTMetricsClient(measures, namespaced{f}, outside{f})
		c := upstream.NewHorizontalController(ctx, kube.CoreV1(), scales{kube}, kube.AutoscalingV2(), mapper, asked, factory.Autoscaling().V2().HorizontalPodAutoscalers(),
			factory.Core().V1().Pods(), period, downscaleStabilization, tolerance, cpuInitialization, initialReadiness)
		return c.Run, nil
	}
}

// scales are those of ReplicaSets.
type scales struct{ kube clientset.Interface }

type scalesOf struct {
	kube      clientset.Interface
	namespace string
}

func (s scales) Scales(namespace string) scale.ScaleInterface { return scalesOf{s.kube, namespace} }

func (s scalesOf) Get(ctx context.Context, _ schema.GroupResource, name string, opts metav1.GetOptions) (*autoscalingv1.Scale, error) {
	return s.kube.AppsV1().ReplicaSets(s.namespace).GetScale(ctx, name, opts)
}
func (s scalesOf) Update(ctx context.Context, _ schema.GroupResource, to *autoscalingv1.Scale, opts metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	return s.kube.AppsV1().ReplicaSets(s.namespace).UpdateScale(ctx, to.Name, to, opts)
}
func (s scalesOf) Patch(context.Context, schema.GroupVersionResource, string, types.PatchType, []byte, metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	panic("autoscalers do not patch")
}

func drawAutoscaler(r *rand.Rand) *autoscalingv2.HorizontalPodAutoscaler {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "web"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web"},
		MinReplicas:    ptr.To(int32(1 + r.IntN(3))), MaxReplicas: int32(4 + r.IntN(17))}}
	for range 1 + r.IntN(2) {
		hpa.Spec.Metrics = append(hpa.Spec.Metrics, drawMetric(r))
	}
	if r.IntN(3) > 0 {
		hpa.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{}
		if r.IntN(4) > 0 {
			hpa.Spec.Behavior.ScaleUp = drawRules(r)
		}
		if r.IntN(4) > 0 {
			hpa.Spec.Behavior.ScaleDown = drawRules(r)
		}
	}
	return hpa
}

func drawMetric(r *rand.Rand) autoscalingv2.MetricSpec {
	quantity := func() *resource.Quantity { return resource.NewQuantity(int64(1+r.IntN(20)), resource.DecimalSI) }
	utilization := autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To(int32(20 + r.IntN(120)))}
	average := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: quantity()}
	value := autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: quantity()}
	cores := autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: resource.NewMilliQuantity(int64(50+r.IntN(200)), resource.DecimalSI)}
	name := autoscalingv2.MetricIdentifier{Name: "queue"}
	switch r.IntN(7) {
	case 0, 1:
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType,
			Resource: &autoscalingv2.ResourceMetricSource{Name: pick(r, corev1.ResourceCPU, corev1.ResourceMemory), Target: utilization}}
	case 2:
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU, Target: cores}}
	case 3:
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ContainerResourceMetricSourceType, ContainerResource: &autoscalingv2.ContainerResourceMetricSource{
			Name: corev1.ResourceCPU, Container: pick(r, "a", "a", "b", "none"), Target: pick(r, utilization, cores)}}
	case 4:
		return autoscalingv2.MetricSpec{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: name, Target: average}}
	case 5:
		return autoscalingv2.MetricSpec{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{Metric: name, Target: pick(r, average, value),
			DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web"}}}
	}
	return autoscalingv2.MetricSpec{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{Metric: name, Target: pick(r, average, value)}}
}

func drawRules(r *rand.Rand) *autoscalingv2.HPAScalingRules {
	rules := &autoscalingv2.HPAScalingRules{}
	if r.IntN(2) == 0 {
		rules.StabilizationWindowSeconds = ptr.To(pick[int32](r, 0, 10, 61, 300, 3600))
	}
	if r.IntN(3) == 0 {
		rules.Tolerance = ptr.To(pick(r, resource.MustParse("0"), resource.MustParse("0.3"), resource.MustParse("50m")))
	}
	if r.IntN(2) == 0 {
		rules.SelectPolicy = ptr.To(pick(r, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect, autoscalingv2.DisabledPolicySelect))
	}
	for range r.IntN(3) {
		rules.Policies = append(rules.Policies, autoscalingv2.HPAScalingPolicy{Type: pick(r, autoscalingv2.PodsScalingPolicy, autoscalingv2.PercentScalingPolicy),
			Value: pick[int32](r, 1, 2, 10, 50, 100), PeriodSeconds: pick[int32](r, 3, 15, 60, 600)})
	}
	return rules
}

// drawServer is a pod of the target in any state that a pod may be in.
func drawServer(r *rand.Rand, name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{NodeName: "n"}}
	for _, c := range []string{"a", "b"} {
		container := corev1.Container{Name: c, Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: *resource.NewMilliQuantity(int64(50+r.IntN(100)), resource.DecimalSI)}}}
		if r.IntN(40) > 0 {
			container.Resources.Requests[corev1.ResourceMemory] = resource.MustParse("100Mi")
		}
		p.Spec.Containers = append(p.Spec.Containers, container)
	}
	return p
}

func drawServerStatus(r *rand.Rand) func(*corev1.Pod) {
	now := time.Now()
	phase := pick(r, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodFailed)
	started, changed := metav1.NewTime(now.Add(-pick(r, 0, 20*time.Second, 4*time.Minute, time.Hour))), metav1.NewTime(now.Add(-pick(r, 0, 10*time.Second, 3*time.Minute)))
	status := pick(r, corev1.ConditionTrue, corev1.ConditionTrue, corev1.ConditionTrue, corev1.ConditionFalse)
	bare := r.IntN(20) == 0
	return func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{Phase: phase}
		if !bare {
			p.Status.StartTime = &started
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: changed}}
		}
	}
}

func (s *served) replicaSet() *appsv1.ReplicaSet {
	rs, err := client.Get[*appsv1.ReplicaSet](s.t.Context(), s.Local, api.Key{Namespace: metav1.NamespaceDefault, Name: "web"})
	if err != nil {
		s.t.Fatal(err)
	}
	return rs
}

// anyContainer is the container that lacks a request: the first one in Knarr, any one in Kubernetes.
var anyContainer = regexp.MustCompile(`in container \w+ of Pod web-\d+`)

// askedAt is what Kubernetes' client puts before an error.
var askedAt = regexp.MustCompile(`Get \\"http://metrics[^ ]*: `)

// called are names that differ: Kubernetes calls an object's metric with an average an external one, where Knarr names the object.
func called() map[string]string {
	return map[string]string{"external metric queue(nil)": "metric queue", "ReplicaSet metric queue": "metric queue"}
}

// showAutoscaler writes what there is: the replicas, and the status without times but the last.
func (s *served) showAutoscaler() string {
	hpa, err := client.Get[*autoscalingv2.HorizontalPodAutoscaler](s.t.Context(), s.Local, api.Key{Namespace: metav1.NamespaceDefault, Name: "web"})
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	st := hpa.Status
	fmt.Fprintf(&b, "  %d replicas; current %d, desired %d, scaled %v", *s.replicaSet().Spec.Replicas, st.CurrentReplicas, st.DesiredReplicas, st.LastScaleTime)
	for _, c := range st.Conditions {
		fmt.Fprintf(&b, "\n  %s=%s %s %q", c.Type, c.Status, c.Reason, c.Message)
	}
	out := anyContainer.ReplaceAllString(askedAt.ReplaceAllString(b.String(), ""), "in a container of a pod")
	for from, to := range called() {
		out = strings.ReplaceAll(out, from, to)
	}
	return out
}

// resize lets the target have the pods that it asks for, as its controller would; drawn are the states of those that are new.
func (s *served) resize(names []string, made map[string]*corev1.Pod, drawn map[string]func(*corev1.Pod)) {
	have := map[string]bool{}
	for _, p := range s.pods() {
		have[p.Name] = true
	}
	for _, name := range names {
		if !have[name] {
			p := clienttest.Create(s.t, s.Local, made[name].DeepCopy())
			s.podStatus(p, drawn[name])
		}
		delete(have, name)
	}
	for name := range have {
		s.removePod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name}}, new(int64))
	}
	if _, err := client.Mutate(s.t.Context(), s.Local, api.KeyOf(s.replicaSet()), "status", func(rs *appsv1.ReplicaSet) bool {
		rs.Status.Replicas = int32(len(names))
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
}

// TestAutoscalersDecideAsInKubernetes: at each look, of the same pods and figures, both set the same number of replicas for the same reasons.
func TestAutoscalersDecideAsInKubernetes(t *testing.T) {
	looks, changes := 0, 0
	n := lives(t, 4, func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 5))
		theirs, ours := newServed(t), newServed(t)
		f := &figures{}
		period := pick(r, 3*time.Second, 15*time.Second, time.Minute)
		theirs.theirs(kubernetesAutoscaler(f, period))
		time.Sleep(time.Second) // until it watches
		scaler := podautoscaler.New(ours.Local, podautoscaler.Config{Ask: f.ask, Rescale: ours.Rescale}).Reconciler
		n := int32(1 + r.IntN(8))
		labels := map[string]string{"app": "web"}
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "web"}, Spec: appsv1.ReplicaSetSpec{Replicas: &n,
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
		hpa := drawAutoscaler(r)
		made, drawn := map[string]*corev1.Pod{}, map[string]func(*corev1.Pod){}
		spec, _ := json.Marshal(hpa.Spec)
		log := []string{fmt.Sprintf("%s, every %v", spec, period)}
		load := int64(100)
		for i := range 80 {
			if i == 0 || r.IntN(3) == 0 { // the target's controller has worked, and everything is measured anew
				var names []string
				want := n
				if i > 0 {
					want = *theirs.replicaSet().Spec.Replicas
				}
				for k := range want {
					name := fmt.Sprint("web-", k)
					if made[name] == nil || r.IntN(10) == 0 {
						made[name] = drawServer(r, name)
					}
					drawn[name] = drawServerStatus(r)
					names = append(names, name)
				}
				load = max(10, min(400, load*pick[int64](r, 50, 80, 100, 130, 250)/100))
				if i == 0 {
					for _, s := range []*served{theirs, ours} {
						clienttest.Create(t, s.Local, rs.DeepCopy())
					}
				}
				for _, s := range []*served{theirs, ours} {
					s.resize(names, made, drawn)
				}
				f.draw(r, theirs.pods(), load)
				log = append(log, fmt.Sprintf("%d pods, load %d, object %d, external %v, away %v", len(names), load, f.object, f.external, f.away))
			}
			if i == 0 {
				synctest.Wait() // until Kubernetes has seen the pods
				for _, s := range []*served{theirs, ours} {
					clienttest.Create(t, s.Local, hpa.DeepCopy())
				}
			} else {
				time.Sleep(period) // virtual
			}
			synctest.Wait()
			if _, err := scaler.Reconcile(t.Context(), api.KeyOf(hpa)); err != nil {
				t.Fatal(err)
			}
			looks++
			want, got := theirs.showAutoscaler(), ours.showAutoscaler()
			if want != got {
				t.Errorf("Kubernetes has\n%s\nwhere Knarr has\n%s\nafter\n%s", want, got, strings.Join(log, "\n"))
				return
			}
			if missing := silent(theirs, ours); len(missing) > 0 {
				t.Errorf("Knarr does not report\n  %s\nafter\n%s", strings.Join(missing, "\n  "), strings.Join(log, "\n"))
				return
			}
			if now := *theirs.replicaSet().Spec.Replicas; now != n {
				changes++
				n = now
			}
			log = append(log, "  "+strings.SplitN(want, "\n", 2)[0])
		}
	})
	t.Logf("%d looks in %d histories, %d changes of replicas", looks, n, changes)
	if n > 20 && changes < n*2 {
		t.Errorf("%d changes in %d histories: what is drawn tests little", changes, n)
	}
}
