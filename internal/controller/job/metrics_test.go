package job

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// shown returns what reg shows as name{labels} value, without the controller's name; of histograms how often they observed.
func shown(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			n := m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, fmt.Sprintf("%s{%s} %v", strings.TrimPrefix(f.GetName(), "job_controller_"), strings.Join(labels, ","), n))
		}
	}
	return out
}

// TestFiguresHaveKubernetesNames: a Job whose first pod fails, an indexed one with a failure policy, and one that another controller manages.
func TestFiguresHaveKubernetesNames(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		reg := prometheus.NewPedanticRegistry()
		first := map[string]string{} // the first pod of each Job, by the Job's name
		c.Start(New(c.Client, NewMetrics(reg)), NewOrphans(c.Client), newNode(c.Client, 0, func(p *corev1.Pod) (int32, time.Duration) {
			name := p.Labels[batchv1.JobNameLabel]
			if first[name] == "" {
				first[name] = p.Name
			}
			if name != "sum" && first[name] == p.Name {
				return 1, time.Second
			}
			return 0, time.Second
		}))
		ct.Make(c, newJob("sum", 3, 3))
		ct.Make(c, newJob("again", 1, 1))
		ct.Make(c, newJob("each", 2, 2, func(j *batchv1.Job) {
			j.Spec.CompletionMode = ptr.To(batchv1.IndexedCompletion)
			j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
			j.Spec.PodReplacementPolicy = ptr.To(batchv1.Failed)
			j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action: batchv1.PodFailurePolicyActionIgnore, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{1}}}}}
		}))
		ct.Make(c, newJob("foreign", 1, 1, func(j *batchv1.Job) { j.Spec.ManagedBy = ptr.To("example.com/jobs") }))
		c.Pass(2 * time.Minute)
		got := shown(t, reg)
		for _, want := range []string{
			"jobs_finished_total{completion_mode=NonIndexed,reason=CompletionsReached,result=succeeded} 2",
			"jobs_finished_total{completion_mode=Indexed,reason=CompletionsReached,result=succeeded} 1",
			"job_pods_finished_total{completion_mode=NonIndexed,result=succeeded} 4",
			"job_pods_finished_total{completion_mode=NonIndexed,result=failed} 1",
			"job_pods_finished_total{completion_mode=Indexed,result=succeeded} 2",
			"job_finished_indexes_total{backoffLimit=global,status=succeeded} 2",
			"pod_failures_handled_by_failure_policy_total{action=Ignore} 1",
			"job_pods_creation_total{reason=recreate_terminating_or_failed,status=succeeded} 1",
			"job_pods_creation_total{reason=new,status=succeeded} 7",
			"terminated_pods_tracking_finalizer_total{event=add} 8",
			"terminated_pods_tracking_finalizer_total{event=delete} 8",
			"jobs_by_external_controller_total{controller_name=example.com/jobs} 1",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("no %s", want)
			}
		}
		for _, some := range []string{"job_syncs_total{action=pods_created,completion_mode=NonIndexed,result=success} ", "job_sync_duration_seconds{action=tracking,completion_mode=Indexed,result=success} "} {
			if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, some) }) {
				t.Errorf("no %s", some)
			}
		}
		if t.Failed() {
			t.Log(strings.Join(got, "\n"))
		}
	})
}
