package flowcontrol

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

type (
	level  = flowcontrolv1.PriorityLevelConfiguration
	schema = flowcontrolv1.FlowSchema
)

// TestStandardsComeBack: what every cluster has is there, and comes back when it is deleted; what servers no longer make goes.
func TestStandardsComeBack(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		if err := Bootstrap(c.T.Context(), c.Client); err != nil {
			c.T.Fatal(err)
		}
		if err := Bootstrap(c.T.Context(), c.Client); err != nil {
			c.T.Fatalf("the second time: %v", err)
		}
		c.Start(New(c.Client))
		c.Settle()
		if levels, schemas := len(controllertest.All[*level](c, "")), len(controllertest.All[*schema](c, "")); levels != 8 || schemas != 11 {
			c.T.Errorf("%d levels, %d schemas", levels, schemas)
		}
		version := controllertest.Get[*schema](c, "", "exempt").ResourceVersion
		controllertest.Delete[*schema](c, "", "exempt", metav1.DeleteOptions{})
		controllertest.Delete[*level](c, "", "workload-low", metav1.DeleteOptions{})
		controllertest.Make(c, &level{ObjectMeta: metav1.ObjectMeta{Name: "of-old", Annotations: map[string]string{flowcontrolv1.AutoUpdateAnnotationKey: "true"}},
			Spec: bootstrap.MandatoryPriorityLevelConfigurationCatchAll.Spec})
		controllertest.Make(c, &level{ObjectMeta: metav1.ObjectMeta{Name: "of-mine"}, Spec: bootstrap.MandatoryPriorityLevelConfigurationCatchAll.Spec})
		c.Settle()
		if s := controllertest.Get[*schema](c, "", "exempt"); s.ResourceVersion == version || !equality.Semantic.DeepEqual(s.Spec, bootstrap.MandatoryFlowSchemaExempt.Spec) {
			c.T.Errorf("the exempt schema: %+v", s)
		}
		controllertest.Get[*level](c, "", "workload-low")
		if !controllertest.Gone[*level](c, "", "of-old") || controllertest.Gone[*level](c, "", "of-mine") {
			c.T.Error("of the other levels the wrong one went")
		}
	})
}

// TestAnnotationDecides: the annotation says whether a suggested object follows the server; without it an object does that nobody has
// changed.
func TestAnnotationDecides(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(New(c.Client))
		if err := Bootstrap(c.T.Context(), c.Client); err != nil {
			c.T.Fatal(err)
		}
		shares := func(l *level) *int32 { return l.Spec.Limited.NominalConcurrencyShares }
		set := func(name, annotation string, n int32) {
			controllertest.Change(c, "", name, "", func(l *level) {
				if annotation != "" {
					l.Annotations[flowcontrolv1.AutoUpdateAnnotationKey] = annotation
				} else {
					delete(l.Annotations, flowcontrolv1.AutoUpdateAnnotationKey)
				}
				l.Spec.Limited.NominalConcurrencyShares = &n
			})
			c.Settle()
		}
		set("system", "true", 77)
		set("workload-low", "false", 77)
		set("global-default", "", 77)
		for name, want := range map[string]struct {
			shares     int32
			annotation string
		}{"system": {30, "true"}, "workload-low": {77, "false"}, "global-default": {77, "false"}} {
			l := controllertest.Get[*level](c, "", name)
			if got := l.Annotations[flowcontrolv1.AutoUpdateAnnotationKey]; *shares(l) != want.shares || got != want.annotation {
				c.T.Errorf("%s: %d shares, annotation %q", name, *shares(l), got)
			}
		}
		// The exempt level's lending is its administrator's.
		five := int32(5)
		controllertest.Change(c, "", "exempt", "", func(l *level) { l.Spec.Exempt.NominalConcurrencyShares = &five })
		c.Settle()
		if l := controllertest.Get[*level](c, "", "exempt"); *l.Spec.Exempt.NominalConcurrencyShares != 5 {
			c.T.Errorf("the exempt level: %+v", l.Spec.Exempt)
		}
	})
}

// TestDangling: a schema says whether its level exists.
func TestDangling(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(New(c.Client))
		controllertest.Make(c, &schema{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: flowcontrolv1.FlowSchemaSpec{
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "there"}}})
		expect := func(status flowcontrolv1.ConditionStatus, reason, message string) {
			c.T.Helper()
			c.Settle()
			s := controllertest.Get[*schema](c, "", "mine")
			if len(s.Status.Conditions) != 1 {
				c.T.Fatalf("conditions %+v", s.Status.Conditions)
			}
			got := s.Status.Conditions[0]
			if got.Type != "Dangling" || got.Status != status || got.Reason != reason || got.Message != message || got.LastTransitionTime.IsZero() {
				c.T.Errorf("condition %+v", got)
			}
		}
		const to = `This FlowSchema references the PriorityLevelConfiguration object named "there"`
		expect("True", "NotFound", to+" but there is no such object")
		controllertest.Make(c, &level{ObjectMeta: metav1.ObjectMeta{Name: "there"}, Spec: bootstrap.MandatoryPriorityLevelConfigurationCatchAll.Spec})
		expect("False", "Found", to+" and it exists")
		controllertest.Delete[*level](c, "", "there", metav1.DeleteOptions{})
		expect("True", "NotFound", to+" but there is no such object")
	})
}
