package deployment

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// configured is a Deployment whose pods have the ConfigMap settings in their environment.
func configured(annotations map[string]string) *appsv1.Deployment {
	d := web(3)
	d.Annotations = annotations
	d.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
	return d
}

func rolling() map[string]string { return map[string]string{spec.OnConfigChange: "true"} }

func makeSettings(c *ct.Cluster, v string) {
	ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "settings"}, Data: map[string]string{"k": v}})
}

func settings(c *ct.Cluster, v string) {
	ct.Change(c, ns, "settings", "", func(m *corev1.ConfigMap) { m.Data["k"] = v })
}

// active returns the ReplicaSet that has the pods, and how many ReplicaSets there are.
func active(c *ct.Cluster) (*appsv1.ReplicaSet, int) {
	c.T.Helper()
	var out *appsv1.ReplicaSet
	all := ct.All[*appsv1.ReplicaSet](c, ns)
	for _, rs := range all {
		if *rs.Spec.Replicas == 0 {
			continue
		}
		if out != nil {
			c.T.Fatalf("two ReplicaSets have pods: %s", state(c))
		}
		out = rs
	}
	return out, len(all)
}

func TestPodsRollWhenTheirConfigChanges(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := start(c)
		makeSettings(c, "1")
		ct.Make(c, configured(rolling()))
		c.Pass(10 * time.Second)
		first, n := active(c)
		if n != 1 || first.Labels[spec.ConfigHash] == "" {
			t.Fatalf("%d ReplicaSets, labels %v", n, first.Labels)
		}
		ct.Change(c, ns, "settings", "", func(m *corev1.ConfigMap) { m.Labels = map[string]string{"a": "b"} })
		stop()
		start(c)
		c.Pass(time.Hour)
		if rs, n := active(c); n != 1 || rs.UID != first.UID {
			t.Fatalf("a restart, or a label of the ConfigMap, rolled the pods: %s", state(c))
		}
		spec1 := ct.Get[*appsv1.Deployment](c, ns, "web").Spec

		settings(c, "2")
		c.Pass(time.Minute)
		second, n := active(c)
		d := ct.Get[*appsv1.Deployment](c, ns, "web")
		if n != 2 || second.UID == first.UID || !finished(d) || d.Annotations[revisionAnnotation] != "2" {
			t.Fatalf("after the change %d ReplicaSets, status %+v", n, d.Status)
		}
		if !equalSpec(d.Spec, spec1) || len(d.Spec.Template.Annotations) != 0 || d.Generation != 1 {
			t.Errorf("something was written into the Deployment: %+v, generation %d", d.Spec.Template, d.Generation)
		}
		if len(second.Spec.Template.Annotations) != 0 {
			t.Errorf("kubectl rollout undo would write %v into the Deployment", second.Spec.Template.Annotations)
		}

		settings(c, "1")
		c.Pass(time.Minute)
		if rs, n := active(c); n != 2 || rs.UID != first.UID || rs.Annotations[revisionAnnotation] != "3" {
			t.Errorf("going back made %d ReplicaSets, revision %s", n, rs.Annotations[revisionAnnotation])
		}
	})
}

func equalSpec(a, b appsv1.DeploymentSpec) bool {
	return sameTemplate(&a.Template, &b.Template) && *a.Replicas == *b.Replicas
}

func TestOptingInAndOutRollsNothing(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		makeSettings(c, "1")
		ct.Make(c, configured(map[string]string{}))
		c.Pass(10 * time.Second)
		settings(c, "2")
		c.Pass(time.Minute)
		first, n := active(c)
		if n != 1 || first.Labels[spec.ConfigHash] != "" {
			t.Fatalf("without the annotation: %d ReplicaSets, labels %v", n, first.Labels)
		}
		edit(c, func(d *appsv1.Deployment) { d.Annotations = rolling() })
		c.Pass(time.Minute)
		if rs, n := active(c); n != 1 || rs.Labels[spec.ConfigHash] == "" {
			t.Fatalf("opting in: %d ReplicaSets, labels %v", n, rs.Labels)
		}
		settings(c, "3")
		c.Pass(time.Minute)
		third, n := active(c)
		if n != 2 {
			t.Fatalf("after opting in a change made %d ReplicaSets", n)
		}
		edit(c, func(d *appsv1.Deployment) { delete(d.Annotations, spec.OnConfigChange) })
		settings(c, "4")
		c.Pass(time.Minute)
		if rs, n := active(c); n != 2 || rs.UID != third.UID {
			t.Errorf("opting out went to %s of %d ReplicaSets", rs.Name, n)
		}
	})
}

func TestConfigThatIsMissingRollsNothing(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, configured(rolling())) // before its ConfigMap, as kubectl apply -f DIR may
		c.Pass(10 * time.Second)
		first, _ := active(c)
		makeSettings(c, "1")
		c.Pass(time.Minute)
		rs, n := active(c)
		if n != 1 || rs.UID != first.UID || rs.Labels[spec.ConfigHash] == "" {
			t.Fatalf("the ConfigMap that was missing made %d ReplicaSets, labels %v", n, rs.Labels)
		}
		ct.Delete[*corev1.ConfigMap](c, ns, "settings", metav1.DeleteOptions{})
		c.Pass(time.Minute)
		makeSettings(c, "1")
		c.Pass(time.Minute)
		if _, n := active(c); n != 1 {
			t.Errorf("taking the ConfigMap away and putting it back made %d ReplicaSets", n)
		}
		ct.Delete[*corev1.ConfigMap](c, ns, "settings", metav1.DeleteOptions{})
		makeSettings(c, "2")
		c.Pass(time.Minute)
		if _, n := active(c); n != 2 {
			t.Errorf("another ConfigMap of the name made %d ReplicaSets", n)
		}
	})
}

// A label that somebody takes away must not make the controller ask for a ReplicaSet again and again whose name is taken.
func TestALabelThatIsLostMakesNoLoop(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		makeSettings(c, "1")
		ct.Make(c, configured(rolling()))
		c.Pass(10 * time.Second)
		first, _ := active(c)
		settings(c, "2")
		c.Pass(time.Minute)
		ct.Change(c, ns, first.Name, "", func(rs *appsv1.ReplicaSet) { delete(rs.Labels, spec.ConfigHash) })
		settings(c, "1")
		c.Pass(time.Minute)
		d := ct.Get[*appsv1.Deployment](c, ns, "web")
		if _, n := active(c); n != 3 || !finished(d) || *d.Status.CollisionCount != 1 {
			t.Errorf("%d ReplicaSets, status %+v", n, d.Status)
		}
	})
}
