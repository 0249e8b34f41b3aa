package api

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
)

const goodFlowSchema = `
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: mine}
spec:
  priorityLevelConfiguration: {name: workload-low}
  distinguisherMethod: {type: ByUser}
  rules: [{subjects: [{kind: User, user: {name: sam}}], nonResourceRules: [{verbs: ["*"], nonResourceURLs: ["*"]}]}]
status: {conditions: [{type: Dangling, status: "True"}]}
`

func TestFlowSchema(t *testing.T) {
	old := create[*flowcontrolv1.FlowSchema](t, goodFlowSchema)
	if old.Generation != 1 || old.Status.Conditions != nil || old.Spec.MatchingPrecedence != 1000 {
		t.Errorf("created %+v", old)
	}
	change := func(s *flowcontrolv1.FlowSchema) {
		s.Spec.MatchingPrecedence, s.Labels = 9, map[string]string{"a": "b"}
		s.Status.Conditions = []flowcontrolv1.FlowSchemaCondition{{Type: "Dangling", Status: "False"}}
	}
	if got := update(t, old, "", change); got.Generation != 2 || got.Status.Conditions != nil || got.Labels == nil {
		t.Errorf("updated %+v", got)
	}
	if got := update(t, old, "status", change); got.Generation != 1 || got.Spec.MatchingPrecedence != 1000 || got.Labels != nil || len(got.Status.Conditions) != 1 {
		t.Errorf("status %+v", got)
	}
}

func TestPriorityLevelConfiguration(t *testing.T) {
	old := create[*flowcontrolv1.PriorityLevelConfiguration](t, `{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: mine},
spec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}}`)
	q := old.Spec.Limited.LimitResponse.Queuing
	if *old.Spec.Limited.NominalConcurrencyShares != 30 || *old.Spec.Limited.LendablePercent != 0 || q.Queues != 64 || q.HandSize != 8 || q.QueueLengthLimit != 50 {
		t.Errorf("defaults %+v, %+v", old.Spec.Limited, q)
	}
	zero := int32(0)
	change := func(l *flowcontrolv1.PriorityLevelConfiguration) {
		l.Spec.Limited.NominalConcurrencyShares = &zero
		l.Status.Conditions = []flowcontrolv1.PriorityLevelConfigurationCondition{{Type: "x", Status: "True"}}
	}
	got := update(t, old, "", change)
	if got.Generation != 2 || *got.Spec.Limited.NominalConcurrencyShares != 0 || got.Status.Conditions != nil {
		t.Errorf("updated %+v", got)
	}
	if errs := PriorityLevelConfigurations.ValidateUpdate(withVersion(got), withVersion(old), ""); len(errs) != 0 {
		t.Errorf("no share: %v", errs)
	}
	if got := update(t, old, "status", change); *got.Spec.Limited.NominalConcurrencyShares != 30 || len(got.Status.Conditions) != 1 {
		t.Errorf("status %+v", got)
	}
}
