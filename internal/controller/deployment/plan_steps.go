package deployment

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/rollout"
)

// conditionRollout says where a roll-out with steps stands, and what is wrong with the annotation that asks for one.
const conditionRollout appsv1.DeploymentConditionType = "knarr.io/Rollout"

// Its reasons, beside the phases.
const (
	reasonInvalid = "InvalidAnnotation"
	reasonReady   = "Ready"
)

// steps is a roll-out with steps in a plan.
type steps struct {
	strategy *spec.Strategy // nil where the Deployment has none that can be read
	problem  error          // why not
	stable   *set           // what is gone back to; nil where there is nothing
	state    *rollout.State // of the new ReplicaSet; nil unless it is going through steps
	decision *rollout.Decision
}

// findSteps reads how d is to be rolled out, and where that stands.
func (r *progress) findSteps() {
	r.steps.strategy, r.steps.problem = spec.StrategyIn(r.d.Annotations)
	if r.steps.strategy != nil && r.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		r.steps.strategy, r.steps.problem = nil, fmt.Errorf("annotation %s: spec.strategy.type has to be RollingUpdate", spec.How)
	}
	state := stateOf(r.fresh)
	if r.steps.problem != nil && state != nil && state.Phase != rollout.Promoted {
		r.steps.strategy, _ = spec.StrategyIn(r.fresh.Annotations) // the last one that could be read
	}
	r.steps.stable = r.findStable(state)
	if r.steps.strategy == nil || r.steps.stable == nil {
		return
	}
	r.steps.state = r.begun(state)
}

// begun returns the state from which the new ReplicaSet goes on; nil where it has no steps to go through.
func (r *progress) begun(state *rollout.State) *rollout.State {
	switch {
	case r.fresh == nil:
		begin := rollout.Begin(0, 0, r.now)
		return &begin
	case state != nil && state.Phase != rollout.Promoted:
		if n, err := revisionOf(r.fresh.ReplicaSet); err == nil && n < r.nextRevision() {
			begin := rollout.Begin(0, state.Attempt+1, r.now) // a template that has come back begins again
			return &begin
		}
		return state
	case r.steps.strategy.Type == spec.BlueGreen && len(activeOf(r.old)) > 0:
		begin := rollout.Begin(len(r.steps.strategy.Steps), 0, r.now) // it was stable before: Services go over as soon as they can
		return &begin
	}
	return nil
}

// findStable returns the newest of the old ReplicaSets that was not a canary, or was promoted. A roll-out begins beside one that has pods.
func (r *progress) findStable(state *rollout.State) *set {
	var out *set
	for _, s := range r.old {
		if st := stateOf(s); st != nil && st.Phase != rollout.Promoted || s.DeletionTimestamp != nil {
			continue
		}
		if out == nil || s.active() && !out.active() || s.active() == out.active() && newerRevision(s.ReplicaSet, out.ReplicaSet) {
			out = s
		}
	}
	if out != nil && !out.active() && (state == nil || state.Phase == rollout.Promoted) {
		return nil
	}
	return out
}

// stateOf reads the state of a ReplicaSet's roll-out; nil where it has none that can be read.
func stateOf(s *set) *rollout.State {
	if s == nil || s.Annotations[spec.State] == "" {
		return nil
	}
	out := &rollout.State{}
	if json.Unmarshal([]byte(s.Annotations[spec.State]), out) != nil {
		return nil
	}
	return out
}

// step takes the roll-out with steps as far as it may go now.
func (r *progress) step(obs observed) {
	if r.fresh == nil {
		rs := newReplicaSet(r.d, r.config)
		r.fresh = &set{ReplicaSet: rs, isNew: true}
		r.setProgress(true, reasonNewReplicaSet, "Created new replica set %q", rs.Name)
	}
	stable := r.steps.stable
	others := slices.DeleteFunc(slices.Clone(r.old), func(s *set) bool { return s == stable })
	view := rollout.View{
		Strategy: r.steps.strategy, Replicas: *r.d.Spec.Replicas, New: pods(r.fresh), Stable: pods(stable),
		OthersGone: len(activeOf(others)) == 0, Frozen: r.d.Spec.Paused, Job: obs.job, Readings: obs.readings,
	}
	view.Action, _ = spec.ActionIn(r.d.Annotations)
	if hasDeadline(r.d) {
		view.Deadline = time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
	}
	decision := rollout.Next(view, *r.steps.state, r.now)
	r.steps.decision = &decision
	order := []*set{r.fresh, stable}
	targets := []rollout.Set{{Pods: pods(r.fresh), Target: decision.New}, {Pods: pods(stable), Target: decision.Stable}}
	if decision.State.Phase == rollout.RolledBack {
		slices.Reverse(order)
		slices.Reverse(targets)
	}
	for _, s := range others {
		order, targets = append(order, s), append(targets, rollout.Set{Pods: pods(s)})
	}
	surge, unavailable := bounds(r.d)
	for i, n := range rollout.Move(rollout.Bounds{Replicas: *r.d.Spec.Replicas, Surge: surge, Unavailable: unavailable}, targets) {
		s := order[i]
		sizedFor, ok := annotatedSize(s.ReplicaSet, desiredAnnotation)
		if s.isNew || n != s.size || n > 0 && (!ok || sizedFor != *r.d.Spec.Replicas) {
			s.resize(n)
		}
	}
	r.report(&decision)
}

func pods(s *set) rollout.Pods {
	return rollout.Pods{Size: s.size, Available: min(s.size, s.Status.AvailableReplicas)}
}

// report turns a decision into events, and asks for what it needs.
func (r *progress) report(d *rollout.Decision) {
	for _, text := range d.News {
		r.act.events = append(r.act.events, event.Normal(r.d, "Rollout", "%s: %s", r.fresh.Name, text))
	}
	for _, text := range d.Warnings {
		r.act.events = append(r.act.events, event.Warning(r.d, "Rollout", "%s: %s", r.fresh.Name, text))
	}
	r.act.after = d.After
	if d.RunJob || d.Read || r.steps.jobDue() {
		r.act.needs = &needs{set: r.fresh.ReplicaSet, strategy: r.steps.strategy, state: d.State, runJob: d.RunJob}
	}
}

// jobDue reports whether the step that was reached is one of a Job.
func (s *steps) jobDue() bool {
	st := s.decision.State
	if st.Phase != rollout.UnderWay || st.Step >= len(s.strategy.Steps) {
		return false
	}
	step := s.strategy.Steps[st.Step]
	return step.Job+step.CronJob != ""
}

// needs is what a plan has to know, or to be done, before it can go on.
type needs struct {
	set      *appsv1.ReplicaSet
	strategy *spec.Strategy
	state    rollout.State
	runJob   bool
}

// noteSteps writes down on the ReplicaSets, in a plan's end, how they are rolled out.
func (r *progress) noteSteps(s *set, rs *appsv1.ReplicaSet) {
	for _, key := range []string{spec.How, spec.OnConfigChange} {
		text, ok := r.d.Annotations[key]
		switch {
		case key == spec.How && r.steps.problem != nil: // the last one that could be read stays
		case ok:
			rs.Annotations = clone(rs.Annotations)
			rs.Annotations[key] = text
		case rs.Annotations[key] != "":
			rs.Annotations = clone(rs.Annotations)
			delete(rs.Annotations, key)
		}
	}
	d := r.steps.decision
	traffic := ""
	switch {
	case d != nil && s == r.fresh && d.OffNew:
		traffic = spec.PreviewOnly
	case d != nil && s == r.steps.stable && d.OffStable:
		traffic = spec.Off
	}
	if traffic != rs.Annotations[spec.Traffic] {
		rs.Annotations = clone(rs.Annotations)
		if delete(rs.Annotations, spec.Traffic); traffic != "" {
			rs.Annotations[spec.Traffic] = traffic
		}
	}
	if s != r.fresh {
		return
	}
	state := stateOf(s)
	switch {
	case d != nil:
		state = &d.State
	case state == nil || state.Phase == rollout.Promoted || r.d.DeletionTimestamp != nil:
		return
	case r.d.Spec.Paused:
		return
	default:
		state.Phase = rollout.Promoted // it is rolled out without steps from here on
	}
	if text, err := json.Marshal(state); err == nil && string(text) != rs.Annotations[spec.State] {
		rs.Annotations = clone(rs.Annotations)
		rs.Annotations[spec.State] = string(text)
	}
}

// trafficFirst puts ReplicaSets to which Services are let before those that they are taken away from, so that there are pods behind them
// between the two writes.
func trafficFirst(a, b update) int {
	given := func(u update) int {
		if u.old.Annotations[spec.Traffic] != "" && u.new.Annotations[spec.Traffic] == "" {
			return 0
		}
		return 1
	}
	return given(a) - given(b)
}

// stepConditions says in conditions what a roll-out with steps is at.
func (r *progress) stepConditions() {
	d := r.steps.decision
	if _, err := spec.ActionIn(r.d.Annotations); err != nil {
		r.steps.problem = errors.Join(r.steps.problem, err)
	}
	if _, err := spec.ConfigChange(r.d.Annotations); err != nil {
		r.steps.problem = errors.Join(r.steps.problem, err)
	}
	switch {
	case r.steps.problem != nil:
		r.replaceCondition(conditionRollout, corev1.ConditionFalse, reasonInvalid, r.steps.problem.Error())
	case d != nil:
		status := corev1.ConditionTrue
		if d.State.Phase == rollout.RolledBack || d.State.Phase == rollout.Held {
			status = corev1.ConditionFalse
		}
		r.replaceCondition(conditionRollout, status, string(d.State.Phase), d.Message)
	case r.steps.strategy != nil:
		r.replaceCondition(conditionRollout, corev1.ConditionTrue, reasonReady, "The next roll-out goes through steps")
	default:
		dropCondition(&r.status, conditionRollout)
	}
	if d == nil || !hasDeadline(r.d) {
		return
	}
	switch {
	case d.State.Phase == rollout.RolledBack:
		// The one sign of a roll-out that has failed, whatever the cause, which kubectl, Helm and Argo CD know.
		r.replaceCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, d.Message)
	case d.Paused:
		r.replaceCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, d.Message)
	case !r.fresh.isNew:
		r.replaceCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonUpdated, d.Message)
	}
}

// replaceCondition is setCondition for messages that change.
func (r *progress) replaceCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	was := r.condition(t)
	if was != nil && was.Status == status && was.Reason == reason && was.Message == message {
		return
	}
	c := newCondition(t, status, reason, message, r.now)
	if was != nil && was.Status == status {
		c.LastTransitionTime = was.LastTransitionTime
	}
	dropCondition(&r.status, t)
	r.status.Conditions = append(r.status.Conditions, c)
}

// seen reports whether the action that d asks for has been seen to, or cannot be.
func (r *progress) seen() bool {
	action, err := spec.ActionIn(r.d.Annotations)
	if err != nil || action == "" || r.d.DeletionTimestamp != nil || r.d.Spec.Paused {
		return false
	}
	if r.steps.decision == nil {
		r.act.events = append(r.act.events, event.Warning(r.d, "Rollout", "Nothing is there to %s: no roll-out with steps is under way", action))
		return true
	}
	return r.steps.decision.State.Done == action
}

// keptOff returns annotations without what kubectl rollout undo brings to a Deployment from a ReplicaSet.
func keptOff(annotations map[string]string, seen bool) map[string]string {
	out := clone(annotations)
	delete(out, spec.State)
	delete(out, spec.Traffic)
	if seen {
		delete(out, spec.Action)
	}
	if apiequality.Semantic.DeepEqual(out, annotations) {
		return annotations
	}
	return out
}
