package ttlafterfinished

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

func makeJob(c *ct.Cluster, name string, ttl *int32) {
	template := ct.Template(name, "img")
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	ct.Make(c, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: batchv1.JobSpec{Template: template, TTLSecondsAfterFinished: ttl}})
}

func finish(c *ct.Cluster, name string) {
	ct.Change(c, ns, name, "status", func(j *batchv1.Job) {
		now := metav1.Now()
		j.Status.StartTime, j.Status.CompletionTime, j.Status.Succeeded = &now, &now, 1
		for _, t := range []batchv1.JobConditionType{batchv1.JobSuccessCriteriaMet, batchv1.JobComplete} {
			j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: now})
		}
	})
}

func TestFinishedJobsAreDeletedInTime(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		makeJob(c, "soon", ptr.To(int32(0)))
		makeJob(c, "later", ptr.To(int32(60)))
		makeJob(c, "kept", nil)
		makeJob(c, "runs", ptr.To(int32(0)))
		c.Pass(time.Minute)
		for _, name := range []string{"soon", "later", "kept"} {
			finish(c, name)
		}
		c.Settle()
		left := func(want map[string]bool) {
			t.Helper()
			for name, there := range want {
				if gone := ct.Gone[*batchv1.Job](c, ns, name) || ct.Get[*batchv1.Job](c, ns, name).DeletionTimestamp != nil; gone == there {
					t.Errorf("job %s is there: %v, want %v", name, !gone, there)
				}
			}
		}
		left(map[string]bool{"soon": false, "later": true, "kept": true, "runs": true})
		c.Pass(59 * time.Second)
		left(map[string]bool{"later": true})
		c.Pass(2 * time.Second)
		left(map[string]bool{"later": false, "kept": true, "runs": true})
	})
}

func TestAChangedTimeCounts(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		makeJob(c, "a", ptr.To(int32(10)))
		finish(c, "a")
		c.Pass(5 * time.Second)
		ct.Change(c, ns, "a", "", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr.To(int32(100)) })
		c.Pass(90 * time.Second)
		if ct.Gone[*batchv1.Job](c, ns, "a") {
			t.Fatal("deleted after the time that it had before")
		}
		ct.Change(c, ns, "a", "", func(j *batchv1.Job) { j.Spec.TTLSecondsAfterFinished = ptr.To(int32(1)) })
		c.Settle()
		if !ct.Gone[*batchv1.Job](c, ns, "a") && ct.Get[*batchv1.Job](c, ns, "a").DeletionTimestamp == nil {
			t.Error("not deleted although its time has passed")
		}
	})
}
