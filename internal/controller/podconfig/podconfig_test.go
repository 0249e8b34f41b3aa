package podconfig

import (
	"context"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

var yes = true

// everything uses each way that there is to get at a ConfigMap or a Secret.
func everything() *corev1.PodTemplateSpec {
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	return &corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Env: []corev1.EnvVar{
			{Name: "plain", Value: "x"},
			{Name: "field", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{}}},
			{Name: "c", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("env"), Key: "k"}}},
		}}},
		Containers: []corev1.Container{{
			Env: []corev1.EnvVar{{Name: "s", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("s-env"), Key: "k", Optional: &yes}}}},
			EnvFrom: []corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("from")}},
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("s-from")}},
			},
		}},
		Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("vol")}}},
			{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s-vol", Items: []corev1.KeyToPath{{Key: "a"}, {Key: "b"}}}}},
			{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("proj"), Optional: &yes}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("s-proj"), Items: []corev1.KeyToPath{{Key: "a"}}}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
			}}}},
		},
	}}
}

func TestEveryUseIsFound(t *testing.T) {
	want := []ref{
		{source{false, "env"}, "k", true, false}, {source{false, "from"}, "", true, false}, {source{false, "proj"}, "", false, true}, {source{false, "vol"}, "", false, false},
		{source{true, "s-env"}, "k", false, true}, {source{true, "s-from"}, "", false, false}, {source{true, "s-proj"}, "a", false, false},
		{source{true, "s-vol"}, "a", false, false}, {source{true, "s-vol"}, "b", false, false},
	}
	tmpl := everything()
	if got := refs(tmpl); !slices.Equal(got, want) {
		t.Errorf("uses %+v", got)
	}
	tmpl.Spec.Containers = append(tmpl.Spec.Containers, tmpl.Spec.Containers[0])
	if got := refs(tmpl); !slices.Equal(got, want) {
		t.Errorf("a second container that uses the same makes %+v", got)
	}
}

func text(salt string, kv ...string) *content {
	c := &content{text: map[string][]byte{}, binary: map[string][]byte{}, salt: salt}
	for i := 0; i < len(kv); i += 2 {
		c.text[kv[i]] = []byte(kv[i+1])
	}
	return c
}

func TestTheHashDependsOnWhatIsUsedAlone(t *testing.T) {
	a := source{false, "a"}
	one, all, env := ref{source: a, key: "k"}, ref{source: a}, ref{source: a, text: true}
	hash := func(u ref, c *content) string { return sum([]ref{u}, map[source]*content{a: c}).Hash }
	base := text("", "k", "v", "other", "x")
	binary := text("", "k", "v", "other", "x")
	binary.binary["b"] = []byte{1}
	for _, tc := range []struct {
		name string
		use  ref
		c    *content
		same bool
	}{
		{"nothing changed", one, text("", "other", "x", "k", "v"), true},
		{"a key that is not used changed", one, text("", "k", "v", "other", "y"), true},
		{"the key changed", one, text("", "k", "w", "other", "x"), false},
		{"any key changed", all, text("", "k", "v", "other", "y"), false},
		{"a key was added", all, text("", "k", "v", "other", "x", "more", ""), false},
		{"a key was renamed", all, text("", "kv", "", "other", "x"), false},
		{"binary data came into a volume", all, binary, false},
		{"binary data does not go into the environment", env, binary, true},
	} {
		if was, is := hash(tc.use, base), hash(tc.use, tc.c); (was == is) != tc.same || len(is) != hashLength {
			t.Errorf("%s: %s became %s", tc.name, was, is)
		}
	}
}

func TestMissingDataHasNoHash(t *testing.T) {
	a := source{false, "a"}
	for _, tc := range []struct {
		name    string
		use     ref
		c       *content
		missing string
	}{
		{"no object", ref{source: a}, nil, "ConfigMap a"},
		{"no key", ref{source: a, key: "k"}, text(""), `key "k" of ConfigMap a`},
		{"no object, and none is needed", ref{source: a, optional: true}, nil, ""},
		{"no key, and none is needed", ref{source: a, key: "k", optional: true}, text(""), ""},
	} {
		got := sum([]ref{tc.use}, map[source]*content{a: tc.c})
		if got.Missing != tc.missing || (got.Hash == "") != (tc.missing != "") {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
	use := ref{source: a, key: "k", optional: true}
	none, empty := sum([]ref{use}, map[source]*content{}), sum([]ref{use}, map[source]*content{a: text("", "k", "")})
	if none.Hash == empty.Hash {
		t.Error("what is not there is as what is empty")
	}
}

func TestTheHashOfASecretCannotBeGuessed(t *testing.T) {
	s := source{true, "s"}
	use := []ref{{source: s, key: "pin"}}
	if sum(use, map[source]*content{s: text("uid-1", "pin", "1234")}) == sum(use, map[source]*content{s: text("uid-2", "pin", "1234")}) {
		t.Error("the hash of a Secret depends on nothing but its value")
	}
}

func owner(annotations map[string]string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: annotations},
		Spec: appsv1.DeploymentSpec{Template: *everything()}}
}

func TestWhatIsReadIsTheNamespacesOwn(t *testing.T) {
	c := clienttest.New(t)
	on := owner(map[string]string{rollout.OnConfigChange: "true"})
	if now, err := Of(t.Context(), c, owner(nil), &on.Spec.Template); now != nil || err != nil {
		t.Errorf("without the annotation: %v, %v", now, err)
	}
	for _, name := range []string{"env", "from", "vol"} {
		clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": "v"}})
	}
	if now, err := Of(context.Background(), c, on, &on.Spec.Template); err != nil || now.Hash != "" || now.Missing != "Secret s-from" {
		t.Errorf("with Secrets missing: %+v, %v", now, err)
	}
	for _, name := range []string{"s-from", "s-proj", "s-vol"} {
		clienttest.Create(t, c, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string][]byte{"a": nil, "b": []byte("b")}})
	}
	now, err := Of(context.Background(), c, on, &on.Spec.Template)
	if err != nil || now.Hash == "" {
		t.Fatalf("%+v, %v", now, err)
	}
	if got := Named(&on.Spec.Template, now.Hash).Annotations[rollout.ConfigHash]; got != now.Hash || on.Spec.Template.Annotations != nil {
		t.Errorf("named by %q; the template has %v", got, on.Spec.Template.Annotations)
	}
}

func TestUsersAreFoundAsLongAsTheyUse(t *testing.T) {
	u := NewUsers(func(o api.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.Deployment).Spec.Template })
	on := owner(map[string]string{rollout.OnConfigChange: "true"})
	object := func(name, uid string, v string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid)}, Data: map[string]string{"k": v}}
	}
	woken := func(old, now *corev1.ConfigMap) bool {
		e := client.Event{Type: client.Modified, Object: now}
		if old != nil {
			e.Old = old
		}
		return slices.Equal(u.Watches()[0].Keys(e), []api.Key{{Namespace: "default", Name: "web"}})
	}
	change := func() bool { return woken(object("vol", "u", "1"), object("vol", "u", "2")) }
	if change() {
		t.Error("woken before it is known")
	}
	u.Note(client.Event{Object: on})
	if !change() || !woken(nil, object("env", "u", "1")) || !woken(object("vol", "u", "1"), object("vol", "v", "1")) {
		t.Error("not woken by a change")
	}
	if woken(object("vol", "u", "1"), object("vol", "u", "1")) || woken(nil, object("stranger", "u", "1")) {
		t.Error("woken by what is no change")
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s-vol"}}
	if got := u.Watches()[1].Keys(client.Event{Type: client.Modified, Old: secret, Object: secret}); got != nil {
		t.Errorf("woken by a Secret that did not change: %v", got)
	}
	if got := u.Watches()[1].Keys(client.Event{Type: client.Deleted, Object: secret}); len(got) != 1 {
		t.Errorf("a Secret that goes wakes %v", got)
	}
	u.Note(client.Event{Object: owner(nil)})
	if change() || len(u.users) != 0 {
		t.Error("woken after opting out")
	}
	u.Note(client.Event{Object: on})
	u.Note(client.Event{Type: client.Deleted, Object: on})
	if change() {
		t.Error("woken after the owner's end")
	}
}
