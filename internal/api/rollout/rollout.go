// Package rollout has the words in which users say how pods are rolled out beyond what a Deployment's own fields can say: the
// annotations, and what may stand in them (docs/adr/0012-rollouts.md).
//
// What flows through it: an annotation's text becomes a [Strategy], or an error that says what is wrong with it and where; the front door
// warns of the error, the Deployment controller puts it into a condition. What must stay true: a text that is misspelt is never taken
// for a shorter one that is right. Tests: TestStrategies, TestMistakesAreNamed, TestWarnings.
package rollout

import "slices"

// Annotations that users write.
const (
	// OnConfigChange, "true" on a Deployment, StatefulSet or DaemonSet, makes its pods roll when a ConfigMap or Secret that they use
	// changes.
	OnConfigChange = "knarr.io/roll-on-config-change"
	// How has the Strategy of a Deployment.
	How = "knarr.io/rollout"
	// Action asks for one of Actions, once: it is taken away when it has been seen to.
	Action = "knarr.io/rollout-action"
)

// What controllers keep on ReplicaSets and ControllerRevisions.
const (
	// ConfigHash is a label: of what the pods' ConfigMaps and Secrets held when the revision was made.
	ConfigHash = "knarr.io/config-hash"
	// State is an annotation: how far the roll-out of the ReplicaSet has come.
	State = "knarr.io/rollout-state"
	// Traffic is an annotation: which Services lead to the ReplicaSet's pods; all, where it is missing.
	Traffic = "knarr.io/traffic"
)

// What may stand in the Traffic annotation.
const (
	PreviewOnly = "preview" // Services with the annotation Preview
	Off         = "off"     // none
)

// Preview, "true" on a Service, gives it the pods that are to come in a blue/green roll-out, where there are any.
const Preview = "knarr.io/rollout-preview"

// What may stand in the Action annotation.
const (
	Promote     = "promote"      // end the pause
	PromoteFull = "promote-full" // skip all steps that are left
	Abort       = "abort"        // roll back
	Retry       = "retry"        // begin again after a roll-back
)

// Actions are all of them.
func Actions() []string { return []string{Promote, PromoteFull, Abort, Retry} }

// ConfigChange reads OnConfigChange of an object's annotations.
func ConfigChange(annotations map[string]string) (on bool, err error) {
	text, ok := annotations[OnConfigChange]
	if !ok || text == "false" {
		return false, nil
	}
	if text != "true" {
		return false, mistake(OnConfigChange, `%q is neither "true" nor "false"`, text)
	}
	return true, nil
}

// ActionIn reads Action of an object's annotations; "" is none.
func ActionIn(annotations map[string]string) (string, error) {
	text := annotations[Action]
	if text != "" && !slices.Contains(Actions(), text) {
		return "", mistake(Action, "%q is none of %q", text, Actions())
	}
	return text, nil
}

// Warnings says what is wrong with the annotations of an object that is being written, as far as they have changed. deployment reports
// whether it is a Deployment, for which all of them are; the others know OnConfigChange alone.
func Warnings(annotations, old map[string]string, deployment bool) (out []string) {
	changed := func(key string) bool {
		text, ok := annotations[key]
		was, had := old[key]
		return ok && (!had || text != was)
	}
	if _, err := ConfigChange(annotations); err != nil && changed(OnConfigChange) {
		out = append(out, err.Error()+"; its pods do not roll")
	}
	for _, key := range []string{How, Action} {
		if !deployment && changed(key) {
			out = append(out, mistake(key, "only Deployments have it").Error())
		}
	}
	if !deployment {
		return out
	}
	if _, err := StrategyIn(annotations); err != nil && changed(How) {
		out = append(out, err.Error()+"; until it is mended the Deployment rolls out as spec.strategy says")
	}
	if _, err := ActionIn(annotations); err != nil && changed(Action) {
		out = append(out, err.Error()+"; nothing is done")
	}
	return out
}
