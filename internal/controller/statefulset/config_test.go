package statefulset

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/rollout"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func TestPodsRollWhenTheirConfigChanges(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := start(c)
		uses := func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "key"}}}}
		}
		ct.Make(c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "key"}, Data: map[string][]byte{"k": []byte("1")}})
		set := ct.Make(c, declared(2, uses))
		pods := func() map[string]bool {
			out := map[string]bool{}
			for _, p := range ct.All[*corev1.Pod](c, ns) {
				out[string(p.UID)] = true
			}
			return out
		}
		// left counts the pods that were there before.
		left := func(before map[string]bool) (n int) {
			for uid := range pods() {
				if before[uid] {
					n++
				}
			}
			return n
		}
		change := func(v string) {
			ct.Change(c, ns, "key", "", func(s *corev1.Secret) { s.Data["k"] = []byte(v) })
			c.Pass(time.Minute)
		}
		c.Pass(time.Minute)
		before := pods()
		change("2")
		if left(before) != 2 || len(ct.All[*appsv1.ControllerRevision](c, ns)) != 1 {
			t.Fatalf("without the annotation %d of 2 pods are left, revisions %s", left(before), revisions(c))
		}
		ct.Change(c, ns, set.Name, "", func(s *appsv1.StatefulSet) { s.Annotations = map[string]string{rollout.OnConfigChange: "true"} })
		c.Pass(time.Minute)
		stop()
		start(c)
		c.Pass(time.Hour)
		if left(before) != 2 || len(ct.All[*appsv1.ControllerRevision](c, ns)) != 1 {
			t.Fatalf("opting in, or a restart, left %d of 2 pods, revisions %s", left(before), revisions(c))
		}
		change("3")
		if left(before) != 0 || revisions(c) != "1=v1 2=v1" {
			t.Fatalf("after the change %d old pods are left, revisions %s", left(before), revisions(c))
		}
		if s := get(c); s.Generation > 2 || len(s.Spec.Template.Annotations) != 0 {
			t.Errorf("something was written into the set: %+v", s.ObjectMeta)
		}
		before = pods()
		change("2")
		if left(before) != 0 || revisions(c) != "2=v1 3=v1" {
			t.Errorf("going back left %d pods, revisions %s", left(before), revisions(c))
		}
		before = pods()
		ct.Delete[*corev1.Secret](c, ns, "key", metav1.DeleteOptions{})
		c.Pass(time.Minute)
		ct.Change(c, ns, set.Name, "", func(s *appsv1.StatefulSet) { s.Annotations = nil })
		c.Pass(time.Minute)
		if left(before) != 2 {
			t.Errorf("a Secret that went, or opting out, left %d of 2 pods", left(before))
		}
	})
}
