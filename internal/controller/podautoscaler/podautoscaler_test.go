package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
)

const ns = metav1.NamespaceDefault

// load is a cluster whose pods divide some work: so many thousandths of a core altogether, and so many jobs in a queue.
type load struct {
	c           *ct.Cluster
	work, queue atomic.Int64
	away        atomic.Bool // the metrics APIs do not answer
	asked       atomic.Int64
	feed        Feed // nil: the metrics APIs are asked for what pods use
	metrics     *Metrics
}

func (l *load) ask(ctx context.Context, path string, query url.Values) ([]byte, error) {
	l.asked.Add(1)
	if l.away.Load() {
		return nil, errors.New("no answer")
	}
	if strings.Contains(path, "external.metrics") {
		return json.Marshal(external.ExternalMetricValueList{Items: []external.ExternalMetricValue{{Value: *resource.NewQuantity(l.queue.Load(), resource.DecimalSI)}}})
	}
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		return nil, err
	}
	pods, err := client.List[*corev1.Pod](ctx, l.c.Client, client.ListOptions{Namespace: ns, Labels: selector})
	if err != nil {
		return nil, err
	}
	var running []*corev1.Pod
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning {
			running = append(running, p)
		}
	}
	list := metrics.PodMetricsList{}
	for _, p := range running {
		each := *resource.NewMilliQuantity(l.work.Load()/int64(len(running)), resource.DecimalSI)
		list.Items = append(list.Items, metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Timestamp: metav1.Now(), Window: metav1.Duration{Duration: time.Second},
			Containers: []metrics.ContainerMetrics{{Name: "c", Usage: corev1.ResourceList{corev1.ResourceCPU: each}}}})
	}
	return json.Marshal(list)
}

func (l *load) rescale(ctx context.Context, res *api.Resource, key api.Key, n int32) error {
	_, err := l.c.Registry.UpdateScale(ctx, res, key, func(s *autoscalingv1.Scale) (*autoscalingv1.Scale, error) { s.Spec.Replicas = n; return s, nil }, metav1.UpdateOptions{})
	return err
}

func (l *load) start() (stop func()) {
	return l.c.Start(New(l.c.Client, Config{Ask: l.ask, Feed: l.feed, Metrics: l.metrics, Rescale: l.rescale}))
}

// kubelet starts pods, and notes when.
type kubelet struct{ client client.Client }

func (k *kubelet) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	_, err := client.Mutate(ctx, k.client, key, "status", func(p *corev1.Pod) bool {
		if p.Status.Phase != corev1.PodPending {
			return false
		}
		ct.MakeReady(p, "10.0.0.1", time.Now())
		p.Status.StartTime = ptr.To(metav1.NewTime(time.Now()))
		return true
	})
	_ = err // a pod that is gone needs nothing
	return 0, nil
}

// begin makes a ReplicaSet of n pods that request 100m each, and an autoscaler of it.
func begin(c *ct.Cluster, n int32, change ...func(*autoscalingv2.HorizontalPodAutoscaler)) *load {
	c.Start(replicaset.New(c.Client), controller.Controller{Name: "kubelet", Watches: []controller.Watch{{Resource: api.Pods}}, Reconciler: &kubelet{c.Client}})
	template := ct.Template("web", "img")
	template.Spec.TerminationGracePeriodSeconds = new(int64)
	template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	ct.Make(c, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}, Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: ct.Selector("web"), Template: template}})
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web"},
			MinReplicas:    ptr.To(int32(1)), MaxReplicas: 10,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To(int32(50))}}}},
		},
	}
	for _, f := range change {
		f(hpa)
	}
	c.Settle()
	ct.Make(c, hpa)
	return &load{c: c}
}

func replicas(c *ct.Cluster) int32 { return *ct.Get[*appsv1.ReplicaSet](c, ns, "web").Spec.Replicas }

// conditions says in one line what the autoscaler's conditions are.
func conditions(c *ct.Cluster) string {
	var out []string
	for _, cond := range ct.Get[*autoscalingv2.HorizontalPodAutoscaler](c, ns, "web").Status.Conditions {
		out = append(out, fmt.Sprintf("%s=%s:%s", cond.Type, cond.Status, cond.Reason))
	}
	return strings.Join(out, " ")
}

func TestReplicasFollowTheLoad(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 1)
		l.work.Store(50)
		l.start()
		c.Pass(6 * time.Minute) // the pod has started long ago
		if n := replicas(c); n != 1 {
			t.Fatalf("%d replicas at the target, want 1", n)
		}
		l.work.Store(300)
		c.Pass(5 * time.Second)
		if n := replicas(c); n != 4 {
			t.Errorf("%d replicas within 5 s of more load, want 4: at first no more than that", n)
		}
		c.Pass(time.Minute)
		if n := replicas(c); n != 6 {
			t.Errorf("%d replicas, want 6", n)
		}
		l.work.Store(60)
		c.Pass(4 * time.Minute)
		if n := replicas(c); n != 6 {
			t.Errorf("%d replicas four minutes after the load is gone, want 6 still", n)
		}
		c.Pass(2 * time.Minute)
		if n := replicas(c); n != 2 {
			t.Errorf("%d replicas, want 2", n)
		}
		hpa := ct.Get[*autoscalingv2.HorizontalPodAutoscaler](c, ns, "web")
		if s := hpa.Status; s.LastScaleTime == nil || *s.ObservedGeneration != hpa.Generation || len(s.CurrentMetrics) != 1 || s.DesiredReplicas != 2 {
			t.Errorf("status %+v", s)
		}
		if got := conditions(c); !strings.Contains(got, "AbleToScale=True:") || !strings.Contains(got, "ScalingActive=True:ValidMetricFound") || !strings.Contains(got, "ScalingLimited=False:DesiredWithinRange") {
			t.Errorf("conditions %s", got)
		}
		if e := strings.Join(c.Events("SuccessfulRescale"), "; "); !strings.Contains(e, "New size: 4; reason: cpu resource utilization (percentage of request) above target") ||
			!strings.Contains(e, "New size: 2; reason: All metrics below target") {
			t.Errorf("events %s", e)
		}
	})
}

func TestARestartScalesNothingDownAtOnce(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 5)
		l.work.Store(50)
		stop := l.start()
		c.Pass(4 * time.Minute)
		stop()
		l.start()
		c.Pass(4 * time.Minute)
		if n := replicas(c); n != 5 {
			t.Errorf("%d replicas, want 5", n)
		}
		c.Pass(2 * time.Minute)
		if n := replicas(c); n != 1 {
			t.Errorf("%d replicas, want 1", n)
		}
	})
}

// A controller that is killed between the scale and the status has scaled once, and the next one says so.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 2)
		l.work.Store(100)
		stop := l.start()
		c.Pass(6 * time.Minute)
		stop()
		l.work.Store(200)
		killed := New(&ct.Killed{Client: c.Client}, Config{Ask: l.ask, Rescale: l.rescale}).Reconciler
		if _, err := killed.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "web"}); err == nil {
			t.Fatal("the status was written")
		}
		if n := replicas(c); n != 4 {
			t.Fatalf("%d replicas, want 4", n)
		}
		l.start()
		c.Pass(time.Minute)
		if s := ct.Get[*autoscalingv2.HorizontalPodAutoscaler](c, ns, "web").Status; replicas(c) != 4 || s.CurrentReplicas != 4 || s.DesiredReplicas != 4 {
			t.Errorf("%d replicas, status %+v", replicas(c), s)
		}
	})
}

func TestPoliciesLimitTheRate(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 2, func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.Behavior = &autoscalingv2.HorizontalPodAutoscalerBehavior{
				ScaleUp:   &autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 1, PeriodSeconds: 60}}},
				ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32), SelectPolicy: ptr.To(autoscalingv2.DisabledPolicySelect)},
			}
		})
		l.work.Store(100)
		l.start()
		c.Pass(6 * time.Minute)
		l.work.Store(1000)
		c.Pass(10 * time.Second)
		if n := replicas(c); n != 3 || !strings.Contains(conditions(c), "ScalingLimited=True:ScaleUpLimit") {
			t.Errorf("%d replicas, want 3; %s", n, conditions(c))
		}
		c.Pass(65 * time.Second)
		if n := replicas(c); n != 4 {
			t.Errorf("%d replicas a minute later, want 4", n)
		}
		l.work.Store(0)
		c.Pass(30 * time.Minute)
		if n := replicas(c); n != 4 {
			t.Errorf("%d replicas although scaling down is disabled", n)
		}
	})
}

func TestFailures(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 3)
		l.away.Store(true)
		l.start()
		c.Pass(time.Hour)
		if n := replicas(c); n != 3 || !strings.Contains(conditions(c), "ScalingActive=False:FailedGetResourceMetric") {
			t.Errorf("%d replicas; %s", n, conditions(c))
		}
		if n := l.asked.Load(); n > 250 {
			t.Errorf("asked %d times in an hour", n)
		}
		l.away.Store(false)
		l.work.Store(300)
		c.Pass(time.Minute)
		if n := replicas(c); n != 6 {
			t.Errorf("%d replicas once there are metrics, want 6", n)
		}
		ct.Change(c, ns, "web", "", func(h *autoscalingv2.HorizontalPodAutoscaler) { h.Spec.ScaleTargetRef.Name = "other" })
		c.Pass(time.Second)
		if !strings.Contains(conditions(c), "AbleToScale=False:FailedGetScale") {
			t.Errorf("without a target: %s", conditions(c))
		}
	})
}

// TestFailuresAreReportedAnewNowAndThen: what each failed look says is written when it changes, and else every five minutes.
func TestFailuresAreReportedAnewNowAndThen(t *testing.T) {
	m, now := &memory{}, time.Unix(1e6, 0)
	for _, tc := range []struct {
		after time.Duration
		text  string
		want  bool
	}{{0, "a", true}, {15 * time.Second, "a", false}, {30 * time.Second, "b", true}, {5 * time.Minute, "b", false}, {331 * time.Second, "b", true}, {400 * time.Second, "b", false}} {
		if got := m.news([]event.Event{{Reason: "Failed", Message: tc.text}}, now.Add(tc.after)); got != tc.want {
			t.Errorf("%s after %v: %v, want %v", tc.text, tc.after, got, tc.want)
		}
	}
}

func TestTwoAutoscalersOfTheSamePods(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 2)
		l.work.Store(100)
		l.start()
		c.Pass(10 * time.Second)
		second := ct.Get[*autoscalingv2.HorizontalPodAutoscaler](c, ns, "web").DeepCopy()
		second.ObjectMeta = metav1.ObjectMeta{Namespace: ns, Name: "web2"}
		ct.Make(c, second)
		c.Pass(20 * time.Second)
		if !strings.Contains(conditions(c), "ScalingActive=False:AmbiguousSelector") || len(c.Events("AmbiguousSelector")) == 0 {
			t.Errorf("conditions %s", conditions(c))
		}
	})
}

func TestBoundsAndZero(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 20)
		l.start()
		c.Pass(time.Second)
		if n := replicas(c); n != 10 {
			t.Errorf("%d replicas, want no more than 10", n)
		}
		ct.Change(c, ns, "web", "", func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = new(int32) })
		c.Pass(10 * time.Second)
		if n := replicas(c); n != 0 || !strings.Contains(conditions(c), "ScalingActive=False:ScalingDisabled") {
			t.Errorf("%d replicas; %s; want that zero switches it off", n, conditions(c))
		}
	})
}

func TestScaleToZeroAndBack(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 2, func(h *autoscalingv2.HorizontalPodAutoscaler) {
			h.Spec.MinReplicas = new(int32)
			h.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "queue"}, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr.To(resource.MustParse("10"))}}}}
		})
		l.queue.Store(20)
		l.start()
		c.Pass(6 * time.Minute)
		if n := replicas(c); n != 2 {
			t.Fatalf("%d replicas for 20 jobs, want 2", n)
		}
		l.queue.Store(0)
		c.Pass(6 * time.Minute)
		if n := replicas(c); n != 0 || !strings.Contains(conditions(c), "ScaledToZero=True:ScaledToZero") {
			t.Fatalf("%d replicas; %s; want zero by its own doing", n, conditions(c))
		}
		l.queue.Store(25)
		c.Pass(5 * time.Second)
		if n := replicas(c); n != 3 || !strings.Contains(conditions(c), "ScaledToZero=False") {
			t.Errorf("%d replicas for 25 jobs, want 3; %s", n, conditions(c))
		}
	})
}
