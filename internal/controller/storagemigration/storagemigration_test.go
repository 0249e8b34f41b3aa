package storagemigration

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

type migration = storagemigrationv1.StorageVersionMigration

func of(name, resource string, conditions ...storagemigrationv1.MigrationConditionType) *migration {
	m := &migration{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagemigrationv1.StorageVersionMigrationSpec{Resource: metav1.GroupResource{Resource: resource}}}
	for _, c := range conditions {
		set(m, c, metav1.ConditionTrue, "Because", "")
	}
	return m
}

func TestPhases(t *testing.T) {
	const running, succeeded, failed = storagemigrationv1.MigrationRunning, storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed
	located := of("m", "pods", running)
	located.Status.ResourceVersion = "7"
	younger := of("a", "pods")
	younger.CreationTimestamp = metav1.Unix(9, 0)
	for name, tc := range map[string]struct {
		m      *migration
		others []*migration
		want   phase
	}{
		"alone":                       {of("m", "pods"), nil, ready},
		"beside another resource's":   {of("m", "pods"), []*migration{of("a", "secrets", running)}, ready},
		"after one that runs":         {of("m", "pods"), []*migration{of("z", "pods", running)}, queued},
		"after one that was there":    {of("m", "pods"), []*migration{of("a", "pods")}, queued},
		"before one that came later":  {of("m", "pods"), []*migration{of("z", "pods"), younger}, ready},
		"after one that is over":      {of("m", "pods"), []*migration{of("a", "pods", running, succeeded), of("b", "pods", failed)}, ready},
		"running":                     {of("m", "pods", running), nil, begun},
		"running, and it knows where": {located, nil, position},
		"succeeded":                   {of("m", "pods", running, succeeded), nil, closing},
		"failed":                      {of("m", "pods", running, failed), nil, closing},
		"over":                        {of("m", "pods", succeeded), nil, over},
	} {
		if got := phaseOf(tc.m, append(tc.others, tc.m)); got != tc.want {
			t.Errorf("%s: phase %d, want %d", name, got, tc.want)
		}
	}
}

func TestObjectsAreWrittenAnew(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		for _, name := range []string{"a", "b"} {
			ct.Make(c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
		}
		c.Start(New(c.Client))
		ct.Make(c, of("first", "configmaps"))
		ct.Make(c, of("second", "configmaps"))
		c.Pass(10 * time.Second)
		for _, name := range []string{"first", "second"} {
			m := ct.Get[*migration](c, "", name)
			running := meta.FindStatusCondition(m.Status.Conditions, "Running")
			if !succeeded(m) || m.Status.ResourceVersion == "" || running == nil || running.Status != metav1.ConditionFalse || running.Reason != "MigrationCompleted" {
				t.Errorf("%s: %+v", name, m.Status)
			}
		}
	})
}

func TestMigrationsThatCannotBe(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		ct.Make(c, of("m", "foo"))
		c.Pass(50 * time.Second)
		if m := ct.Get[*migration](c, "", "m"); finished(m) || !running(m) {
			t.Errorf("a resource that may still come: %+v", m.Status)
		}
		c.Pass(20 * time.Second)
		m := ct.Get[*migration](c, "", "m")
		if f := meta.FindStatusCondition(m.Status.Conditions, "Failed"); f == nil || f.Message != "resource does not exist in discovery" || f.Reason != "StorageVersionMigrationFailed" || running(m) {
			t.Errorf("a resource that did not come: %+v", m.Status)
		}
	})
	if verb := lacks(&api.Resource{Verbs: []string{"create", "update", "list"}}); verb != "patch" {
		t.Errorf("a resource without patch lacks %q", verb)
	}
	if verb := lacks(&api.Resource{}); verb != "" {
		t.Errorf("a resource with all verbs lacks %q", verb)
	}
}

func TestOnlyWhatIsOlderIsWritten(t *testing.T) {
	at := func(rv string) api.Object {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "at-" + rv, ResourceVersion: rv}}
	}
	got, err := outdated([]api.Object{at("9"), at("10"), at("11"), at("100")}, "10")
	if err != nil || len(got) != 2 || got[0].GetName() != "at-9" || got[1].GetName() != "at-10" {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "x"} {
		if _, err := outdated(nil, bad); err == nil {
			t.Errorf("revision %q is taken", bad)
		}
	}
}

func TestDefinitionsAreMarked(t *testing.T) {
	now := time.Unix(1000, 0)
	def := func() *apiextensionsv1.CustomResourceDefinition {
		return &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Generation: 3},
			Spec:   apiextensionsv1.CustomResourceDefinitionSpec{Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1"}, {Name: "v2", Storage: true}}},
			Status: apiextensionsv1.CustomResourceDefinitionStatus{StoredVersions: []string{"v1", "v2"}, Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{{Type: "Established"}}}}
	}
	crd := def()
	if !mark(crd, "m", now) || mark(crd, "m", now.Add(time.Hour)) {
		t.Error("marking twice is not marking once")
	}
	c := crd.Status.Conditions[1]
	if c.Type != apiextensionsv1.StorageMigrating || c.Status != "True" || c.Message != "Migration m is running" || c.ObservedGeneration != 3 {
		t.Errorf("marked %+v", c)
	}
	if !unmark(crd, true, now) || strings.Join(crd.Status.StoredVersions, " ") != "v2" || crd.Status.Conditions[1].Status != "False" || len(crd.Status.Conditions) != 2 {
		t.Errorf("after success: %+v", crd.Status)
	}
	for name, change := range map[string]func(*apiextensionsv1.CustomResourceDefinition) bool{
		"failure": func(crd *apiextensionsv1.CustomResourceDefinition) bool { return unmark(crd, false, now) },
		"a definition that has changed": func(crd *apiextensionsv1.CustomResourceDefinition) bool {
			crd.Generation++
			return unmark(crd, true, now)
		},
	} {
		crd := def()
		mark(crd, "m", now)
		if !change(crd) || len(crd.Status.StoredVersions) != 2 {
			t.Errorf("after %s: %+v", name, crd.Status)
		}
	}
}

func TestWhatIsSaidOfAMigration(t *testing.T) {
	for want, got := range map[string]string{
		"The migration is running":                                                   runningMessage(0, 0, nil),
		"The migration is running, 2/5 objects not yet migrated":                     runningMessage(2, 5, nil),
		"The migration is running, 5 objects verified migrated":                      runningMessage(0, 5, nil),
		"The migration is running, 2/5 objects not yet migrated; transient error: x": runningMessage(2, 5, errors.New("x")),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
