// Package podconfig finds out when the ConfigMaps and Secrets that pods use have become others, so that the pods roll (the annotation
// knarr.io/roll-on-config-change, docs/adr/0012-rollouts.md).
//
// What flows through it: a pod template names what it uses ([refs]); what this holds now is read ([Of]) and becomes one hash,
// which the controllers of Deployments, StatefulSets and DaemonSets keep with a revision; [Users] maps a ConfigMap or Secret that
// changes to the owners that use it. What must stay true: equal data has an equal hash, whoever computes it and when
// (TestTheHashDependsOnWhatIsUsedAlone); data that a pod cannot start without and that is not there has none
// (TestMissingDataHasNoHash); who may not read a Secret cannot guess it from the hash (TestTheHashOfASecretCannotBeGuessed).
package podconfig

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// source is a ConfigMap or a Secret of the pods' namespace.
type source struct {
	secret bool
	name   string
}

// ref is a use of a source.
type ref struct {
	source
	key      string // "" is everything in it
	text     bool   // only what is text, as environment variables are made from
	optional bool
}

// refs returns what the containers of a template get from ConfigMaps and Secrets, each use once, in an order of its own.
func refs(t *corev1.PodTemplateSpec) []ref {
	var out []ref
	for _, containers := range [][]corev1.Container{t.Spec.InitContainers, t.Spec.Containers} {
		for i := range containers {
			out = append(out, environment(&containers[i])...)
		}
	}
	for i := range t.Spec.Volumes {
		out = append(out, volume(&t.Spec.Volumes[i])...)
	}
	slices.SortFunc(out, func(a, b ref) int {
		return cmp.Or(order(a.secret, b.secret), cmp.Compare(a.name, b.name), cmp.Compare(a.key, b.key), order(a.text, b.text), order(a.optional, b.optional))
	})
	return slices.Compact(out)
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func is(optional *bool) bool { return optional != nil && *optional }

func environment(c *corev1.Container) (out []ref) {
	for _, from := range c.EnvFrom {
		if m := from.ConfigMapRef; m != nil {
			out = append(out, ref{source: source{false, m.Name}, text: true, optional: is(m.Optional)})
		}
		if s := from.SecretRef; s != nil {
			out = append(out, ref{source: source{true, s.Name}, optional: is(s.Optional)})
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil {
			continue
		}
		if m := env.ValueFrom.ConfigMapKeyRef; m != nil {
			out = append(out, ref{source{false, m.Name}, m.Key, true, is(m.Optional)})
		}
		if s := env.ValueFrom.SecretKeyRef; s != nil {
			out = append(out, ref{source{true, s.Name}, s.Key, false, is(s.Optional)})
		}
	}
	return out
}

func volume(v *corev1.Volume) (out []ref) {
	if m := v.ConfigMap; m != nil {
		out = append(out, items(source{false, m.Name}, m.Items, m.Optional)...)
	}
	if s := v.Secret; s != nil {
		out = append(out, items(source{true, s.SecretName}, s.Items, s.Optional)...)
	}
	if v.Projected == nil {
		return out
	}
	for _, p := range v.Projected.Sources {
		if m := p.ConfigMap; m != nil {
			out = append(out, items(source{false, m.Name}, m.Items, m.Optional)...)
		}
		if s := p.Secret; s != nil {
			out = append(out, items(source{true, s.Name}, s.Items, s.Optional)...)
		}
	}
	return out
}

func items(from source, keys []corev1.KeyToPath, optional *bool) (out []ref) {
	if len(keys) == 0 {
		return []ref{{source: from, optional: is(optional)}}
	}
	for _, k := range keys {
		out = append(out, ref{source: from, key: k.Key, optional: is(optional)})
	}
	return out
}
