package statefulset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func withClaims(s *appsv1.StatefulSet) {
	s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}},
	}}
}

func retention(deleted, scaled string) func(*appsv1.StatefulSet) {
	return func(s *appsv1.StatefulSet) {
		s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.PersistentVolumeClaimRetentionPolicyType(deleted), WhenScaled: appsv1.PersistentVolumeClaimRetentionPolicyType(scaled)}
	}
}

// failing is a client that refuses all writes once it has made some.
type failing struct {
	client.Client
	after int
}

var errKilled = errors.New("killed")

func (f *failing) spend(n int) bool {
	if f.after <= 0 {
		return false
	}
	f.after -= n
	return true
}

func (f *failing) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	if !f.spend(1) {
		return nil, errKilled
	}
	return f.Client.Create(ctx, obj)
}

func (f *failing) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	if !f.spend(1) {
		return nil, errKilled
	}
	return f.Client.Update(ctx, obj, sub)
}

func (f *failing) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	if len(objs) > 0 && f.Served().Now().Of(objs[0]) == api.Events {
		return f.Client.CreateMany(ctx, objs)
	}
	out := make([]client.Result, len(objs))
	for i := range objs {
		if !f.spend(1) {
			out[i].Err = errKilled
			continue
		}
		out[i] = f.Client.CreateMany(ctx, objs[i:i+1])[0]
	}
	return out
}

func (f *failing) DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []client.Result {
	out := make([]client.Result, len(objs))
	for i := range objs {
		if !f.spend(1) {
			out[i].Err = errKilled
			continue
		}
		out[i] = f.Client.DeleteMany(ctx, objs[i:i+1], opts)[0]
	}
	return out
}

// claims shows each claim as NAME and the kinds that own it.
func claims(c *ct.Cluster) string {
	var out []string
	for _, claim := range ct.All[*corev1.PersistentVolumeClaim](c, ns) {
		word := claim.Name
		for _, r := range claim.OwnerReferences {
			word += "<" + r.Kind
			if r.Controller == nil || !*r.Controller {
				word += "?"
			}
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

func TestRetentionOfClaims(t *testing.T) {
	for _, tc := range []struct{ deleted, scaled, full, ending string }{
		{"Retain", "Retain", "data-db-0 data-db-1", "data-db-0 data-db-1"},
		{"Delete", "Retain", "data-db-0<StatefulSet data-db-1<StatefulSet", "data-db-0<StatefulSet data-db-1<StatefulSet"},
		{"Retain", "Delete", "data-db-0 data-db-1", "data-db-0 data-db-1<Pod"},
		{"Delete", "Delete", "data-db-0<StatefulSet data-db-1<StatefulSet", "data-db-0<StatefulSet data-db-1<Pod"},
	} {
		t.Run(tc.deleted+tc.scaled, func(t *testing.T) {
			ct.Run(t, func(c *ct.Cluster) {
				start(c)
				ct.Make(c, declared(2, withClaims, retention(tc.deleted, tc.scaled)))
				c.Pass(10 * time.Second)
				expect(t, "claims", claims(c), tc.full)
				scale(c, 1)
				c.Settle()
				expect(t, "while a pod ends", claims(c), tc.ending)
				c.Pass(2 * time.Second)
				if tc.scaled == "Delete" {
					scale(c, 2)
					c.Pass(time.Minute)
					expect(t, "a claim of a predecessor keeps the pod from being made", state(c), "0=v1")
					ct.Delete[*corev1.PersistentVolumeClaim](c, ns, "data-db-1", metav1.DeleteOptions{}) // as the garbage collector does
					c.Pass(10 * time.Second)
					expect(t, "until it is gone", state(c)+" "+claims(c), "0=v1 1=v1 "+tc.full)
				}
				edit(c, retention("Retain", "Retain"))
				c.Pass(time.Second)
				if got := claims(c); !strings.HasPrefix(got, "data-db-0 data-db-1") {
					t.Errorf("claims %s, want none of a pod that goes with the set", got)
				}
			})
		})
	}
}

func TestClaimsOfOthersAreLeftAlone(t *testing.T) {
	set := db(2, withClaims, retention("Delete", "Delete"))
	pod := pods(set, "0:v1:ready")[0]
	yes := true
	ref := func(kind, version, name string, uid types.UID, controller bool) metav1.OwnerReference {
		r := metav1.OwnerReference{Kind: kind, APIVersion: version, Name: name, UID: uid}
		if controller {
			r.Controller = &yes
		}
		return r
	}
	for _, tc := range []struct {
		name     string
		refs     []metav1.OwnerReference
		want     string
		conflict bool
	}{
		{"nobody's", nil, "StatefulSet", false},
		{"another's", []metav1.OwnerReference{ref("Backup", "v1", "b", "other", false)}, "Backup StatefulSet", false},
		{"under another's control", []metav1.OwnerReference{ref("Backup", "v1", "b", "other", true)}, "Backup", true},
		{"a predecessor's", []metav1.OwnerReference{ref("StatefulSet", "apps/v1", "db", "old", true)}, "StatefulSet", false},
		{"its pod's", []metav1.OwnerReference{ref("Pod", "v1", "db-0", pod.UID, true)}, "StatefulSet", false},
	} {
		refs, conflict := wantedRefs(set, pod, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: tc.refs}}, false)
		var kinds []string
		for _, r := range refs {
			kinds = append(kinds, r.Kind)
		}
		if got := strings.Join(kinds, " "); got != tc.want || conflict != tc.conflict {
			t.Errorf("%s: %s, conflict %v; want %s, %v", tc.name, got, conflict, tc.want, tc.conflict)
		}
	}
}

func TestMissingClaimsAreMadeAgain(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), ct.Kubelet(c.Client, time.Hour, 0))
		ct.Make(c, declared(1, withClaims))
		c.Pass(time.Second)
		ct.Delete[*corev1.PersistentVolumeClaim](c, ns, "data-db-0", metav1.DeleteOptions{})
		c.Pass(time.Second)
		expect(t, "for a pod that waits for it", claims(c), "data-db-0")
		if events := c.Events("SuccessfulCreate"); len(events) != 2 || events[0] == events[1] {
			t.Errorf("events %q, want the claim and the pod", events)
		}
	})
}

func TestClaimsWakeTheirSets(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "data-my-db-3"}}
	if got := fmt.Sprint(claimKeys(client.Event{Type: client.Deleted, Object: claim})); got != "[default/my-db default/db]" {
		t.Errorf("keys %s", got)
	}
	if got := claimKeys(client.Event{Type: client.Modified, Object: claim}); got != nil {
		t.Errorf("keys %v of a claim that stays", got)
	}
}
