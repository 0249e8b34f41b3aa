package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// counting notes the sizes of the batches of pods, and refuses the pods of the batch with the number refuse.
type counting struct {
	client.Client
	sizes  []int
	refuse int
	why    error
}

func (c *counting) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	if _, ok := objs[0].(*corev1.Pod); !ok {
		return c.Client.CreateMany(ctx, objs)
	}
	c.sizes = append(c.sizes, len(objs))
	if len(c.sizes) != c.refuse {
		return c.Client.CreateMany(ctx, objs)
	}
	return slices.Repeat([]client.Result{{Err: c.why}}, len(objs))
}

func TestBurstsBeginWithOnePodAndDouble(t *testing.T) {
	refused := errors.New("exceeded quota")
	terminating := &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonForbidden,
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}}}}
	for _, tc := range []struct {
		name   string
		refuse int
		why    error
		sizes  string
		fails  bool
		events string // of success and of failure
	}{
		{"all are let in", 0, nil, "[1 2 4 3]", false, "10 0"},
		{"the first is refused", 1, refused, "[1]", true, "0 1"},
		{"the third batch is refused", 3, refused, "[1 2 4]", true, "3 1"},
		{"the namespace is being deleted", 2, terminating, "[1 2]", false, "1 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ct.Run(t, func(c *ct.Cluster) {
				front := &counting{Client: c.Client, refuse: tc.refuse, why: tc.why}
				pods := &Pods{Client: front, Kind: kind, Component: "test", Owners: newOwners()}
				rs := owner("default", "web", "app=web")
				template := ct.Template("web", "img")
				var want []*corev1.Pod
				for range 10 {
					want = append(want, NewPod(rs, kind, &template))
				}
				err := pods.Create(c.T.Context(), rs, want)
				if fmt.Sprint(front.sizes) != tc.sizes || (err != nil) != tc.fails {
					t.Errorf("batches %v, error %v; want %s, an error %v", front.sizes, err, tc.sizes, tc.fails)
				}
				failures := 0
				if len(c.Events("FailedCreate")) > 0 {
					failures = 1 // alike, they are counted in one
				}
				if got := fmt.Sprint(len(c.Events("SuccessfulCreate")), failures); got != tc.events {
					t.Errorf("events of success and failure: %s, want %s", got, tc.events)
				}
			})
		})
	}
}

func TestDeleteTakesWhatIsGoneForDone(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		pods := &Pods{Client: c.Client, Kind: kind, Component: "test", Owners: newOwners()}
		rs := owner("default", "web", "app=web")
		template := ct.Template("web", "img")
		make := func(name string) *corev1.Pod {
			p := NewPod(rs, kind, &template)
			p.GenerateName, p.Name = "", name
			return ct.Make(c, p)
		}
		there, gone, again := make("there"), make("gone"), make("again")
		for _, name := range []string{"gone", "again"} {
			ct.Delete[*corev1.Pod](c, "default", name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		}
		make("again") // a successor of the same name
		if err := pods.Delete(c.T.Context(), rs, []*corev1.Pod{there, gone, again}); err != nil {
			t.Error(err)
		}
		if left := ct.All[*corev1.Pod](c, "default"); len(left) != 1 || left[0].Name != "again" || left[0].DeletionTimestamp != nil {
			t.Errorf("%d pods are left, want the successor alone", len(left))
		}
		if got := c.Events("SuccessfulDelete"); len(got) != 1 || got[0] != "Deleted pod: there" {
			t.Errorf("events %q", got)
		}
	})
}

func TestPodsTakeTheirTemplateAndOwner(t *testing.T) {
	rs := owner("default", "web", "app=web")
	template := ct.Template("web", "img")
	template.Annotations, template.Finalizers = map[string]string{"a": "b"}, []string{"example.com/hold"}
	p := NewPod(rs, kind, &template)
	if p.Namespace != "default" || p.GenerateName != "web-" || p.Labels["app"] != "web" || p.Annotations["a"] != "b" || p.Finalizers[0] != "example.com/hold" {
		t.Errorf("metadata %+v", p.ObjectMeta)
	}
	if !metav1.IsControlledBy(p, rs) || !*p.OwnerReferences[0].BlockOwnerDeletion {
		t.Errorf("owner %+v, want the ReplicaSet, which waits for the pod", p.OwnerReferences)
	}
	p.Labels["app"], p.Spec.Containers[0].Image = "x", "x"
	if template.Labels["app"] != "web" || template.Spec.Containers[0].Image != "img" {
		t.Error("the pod shares memory with the template")
	}
	rs.Name = strings.Repeat("a", 250)
	if p := NewPod(rs, kind, &template); p.GenerateName != rs.Name {
		t.Errorf("the prefix of an owner with a long name is %q: its last dash would be cut off and be no name", p.GenerateName)
	}
}

func TestStatusOfAnotherOfThatNameStaysAsItIs(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		n := int32(1)
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec: appsv1.ReplicaSetSpec{Replicas: &n, Selector: ct.Selector("web"), Template: ct.Template("web", "img")}}
		stored := ct.Make(c, rs.DeepCopy())
		write := func(about *appsv1.ReplicaSet, n int32) {
			t.Helper()
			if err := WriteStatus(c.T.Context(), c.Client, about, func(o *appsv1.ReplicaSet) bool { o.Status.Replicas = n; return true }); err != nil {
				t.Error(err)
			}
		}
		write(stored, 7)
		ct.Delete[*appsv1.ReplicaSet](c, "default", "web", metav1.DeleteOptions{})
		write(stored, 8) // gone
		ct.Make(c, rs.DeepCopy())
		write(stored, 9) // another
		if got := ct.Get[*appsv1.ReplicaSet](c, "default", "web").Status.Replicas; got != 0 {
			t.Errorf("the new object has the status of the old one: %d replicas", got)
		}
	})
}
