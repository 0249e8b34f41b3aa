package authz

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// usesSecret tells whether a pod needs the secret called name on its node.
func usesSecret(spec *corev1.PodSpec, name string) bool {
	if slices.Contains(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name}) {
		return true
	}
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return volumeUsesSecret(&v, name) }) ||
		anyEnv(spec, func(e *corev1.EnvVarSource) bool { return e.SecretKeyRef != nil && e.SecretKeyRef.Name == name },
			func(e *corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == name })
}

func volumeUsesSecret(v *corev1.Volume, name string) bool {
	ref := func(r *corev1.LocalObjectReference) bool { return r != nil && r.Name == name }
	switch {
	case v.Secret != nil:
		return v.Secret.SecretName == name
	case v.Projected != nil:
		return slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.Secret != nil && s.Secret.Name == name })
	case v.CSI != nil:
		return ref(v.CSI.NodePublishSecretRef)
	case v.AzureFile != nil:
		return v.AzureFile.SecretName == name
	case v.CephFS != nil:
		return ref(v.CephFS.SecretRef)
	case v.Cinder != nil:
		return ref(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		return ref(v.FlexVolume.SecretRef)
	case v.ISCSI != nil:
		return ref(v.ISCSI.SecretRef)
	case v.RBD != nil:
		return ref(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		return ref(v.ScaleIO.SecretRef)
	case v.StorageOS != nil:
		return ref(v.StorageOS.SecretRef)
	}
	return false
}

// usesConfigMap tells whether a pod needs the ConfigMap called name on its node.
func usesConfigMap(spec *corev1.PodSpec, name string) bool {
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		if v.ConfigMap != nil {
			return v.ConfigMap.Name == name
		}
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ConfigMap != nil && s.ConfigMap.Name == name })
	}) || anyEnv(spec, func(e *corev1.EnvVarSource) bool { return e.ConfigMapKeyRef != nil && e.ConfigMapKeyRef.Name == name },
		func(e *corev1.EnvFromSource) bool { return e.ConfigMapRef != nil && e.ConfigMapRef.Name == name })
}

// usesClaim tells whether a pod uses the PersistentVolumeClaim called name; that of an ephemeral volume is called POD-VOLUME.
func usesClaim(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == name || v.Ephemeral != nil && p.Name+"-"+v.Name == name
	})
}

// usesDevicesOf reports whether a pod uses the ResourceClaim called name, of its own or made for it.
func usesDevicesOf(p *corev1.Pod, name string) bool {
	for claim := range resourceclaim.PodClaims(p) {
		if claim == name {
			return true
		}
	}
	return false
}

// anyEnv tells whether one of the pod's containers takes a variable, or all of them, from what one or all look for.
func anyEnv(spec *corev1.PodSpec, one func(*corev1.EnvVarSource) bool, all func(*corev1.EnvFromSource) bool) bool {
	in := func(env []corev1.EnvVar, from []corev1.EnvFromSource) bool {
		return slices.ContainsFunc(env, func(e corev1.EnvVar) bool { return e.ValueFrom != nil && one(e.ValueFrom) }) ||
			slices.ContainsFunc(from, func(e corev1.EnvFromSource) bool { return all(&e) })
	}
	container := func(c corev1.Container) bool { return in(c.Env, c.EnvFrom) }
	return slices.ContainsFunc(spec.InitContainers, container) || slices.ContainsFunc(spec.Containers, container) ||
		slices.ContainsFunc(spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return in(c.Env, c.EnvFrom) })
}
