package plugins

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
)

const (
	tokenMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolume    = "kube-api-access-"
	// tokenSeconds is the life that projected tokens ask for; package authn knows it (KEP-1205).
	tokenSeconds = 3607
	// mountableSecrets is an account's annotation: its pods may use only the secrets that it lists.
	mountableSecrets = "kubernetes.io/enforce-mountable-secrets"
)

// ServiceAccount gives each new pod a service account that exists, its token as a projected volume, and its image pull
// secrets.
type ServiceAccount struct{ Reader admission.Reader }

// Name implements admission.Plugin.
func (ServiceAccount) Name() string { return "ServiceAccount" }

// Admit implements admission.Plugin.
func (p ServiceAccount) Admit(ctx context.Context, a *admission.Attributes) error {
	pod := newPod(a)
	if pod == nil {
		return nil
	}
	if isMirror(pod) {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
		pod.Spec.DeprecatedServiceAccount = "default"
	}
	sa := p.account(ctx, a, pod.Spec.ServiceAccountName)
	if sa == nil {
		return noAccount(a, pod)
	}
	if mounts(sa, pod) {
		mountToken(pod, sa)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(sa.ImagePullSecrets)
	}
	return nil
}

// Validate implements admission.Plugin. It looks again, because other plugins may have changed the pod.
func (p ServiceAccount) Validate(ctx context.Context, a *admission.Attributes) error {
	if pod := newPod(a); pod != nil {
		if isMirror(pod) {
			return validateMirror(a, pod)
		}
		sa := p.account(ctx, a, pod.Spec.ServiceAccountName)
		if sa == nil {
			return noAccount(a, pod)
		}
		return limitSecrets(a, sa, pod)
	}
	if a.Resource == api.Pods && a.Operation == admission.Update && a.Subresource == "ephemeralcontainers" {
		pod := a.Object.(*corev1.Pod)
		if obj, ok := p.Reader.Get(api.ServiceAccounts, api.Key{Namespace: a.Key.Namespace, Name: pod.Spec.ServiceAccountName}); ok {
			return limitSecrets(a, obj.(*corev1.ServiceAccount), pod)
		}
	}
	return nil
}

// account looks up an account. In a new namespace "default" comes a moment later; people who create both in one go are made to
// wait for it rather than turned away. Controllers come again by themselves.
func (p ServiceAccount) account(ctx context.Context, a *admission.Attributes, name string) *corev1.ServiceAccount {
	const patience, step = time.Second, 20 * time.Millisecond
	key := api.Key{Namespace: a.Key.Namespace, Name: name}
	for waited := time.Duration(0); ; waited += step {
		if obj, ok := p.Reader.Get(api.ServiceAccounts, key); ok {
			return obj.(*corev1.ServiceAccount)
		}
		if name != "default" || a.User == nil || request.From(ctx).InProcess || waited >= patience {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(step):
		}
	}
}

func noAccount(a *admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName == "" {
		return forbidden(a, "no service account specified for pod %s/%s", a.Key.Namespace, pod.Name)
	}
	return forbidden(a, "error looking up service account %s/%s: serviceaccount %q not found", a.Key.Namespace, pod.Spec.ServiceAccountName, pod.Spec.ServiceAccountName)
}

// mounts tells whether the pod wants a token: its own wish, or else its account's, or else yes.
func mounts(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case sa.AutomountServiceAccountToken != nil:
		return *sa.AutomountServiceAccountToken
	}
	return true
}

// mountToken mounts the token into each container that has nothing else there. The volume is named after the account, so that the
// specs of pods that are alike are equal and can be kept once; names of volumes need only differ within a pod.
func mountToken(pod *corev1.Pod, sa *corev1.ServiceAccount) {
	name, have := "", false
	for i := range pod.Spec.Volumes {
		if strings.HasPrefix(pod.Spec.Volumes[i].Name, tokenVolume) {
			name, have = pod.Spec.Volumes[i].Name, true
			break
		}
	}
	if !have {
		h := fnv.New64a()
		_, _ = h.Write([]byte(sa.UID)) // a hash takes everything
		name = tokenVolume + rand.SafeEncodeString(fmt.Sprintf("%05d", h.Sum64()%1e5))
	}
	needed := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenMountPath }) {
				continue
			}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMountPath})
			needed = true
		}
	}
	if needed && !have {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenSource()}})
	}
}

// tokenSource is the token, the cluster's authority and the namespace, where client-go's in-cluster configuration looks for
// them.
func tokenSource() *corev1.ProjectedVolumeSource {
	mode := corev1.ProjectedVolumeSourceDefaultMode
	seconds := int64(tokenSeconds)
	return &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}

// limitSecrets refuses secrets that an account with the annotation does not list.
func limitSecrets(a *admission.Attributes, sa *corev1.ServiceAccount, pod *corev1.Pod) error {
	if on, _ := strconv.ParseBool(sa.Annotations[mountableSecrets]); !on {
		return nil
	}
	listed := func(name string) bool {
		return slices.ContainsFunc(sa.Secrets, func(r corev1.ObjectReference) bool { return r.Name == name })
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil && !listed(v.Secret.SecretName) {
			return forbidden(a, "volume with secret.secretName=%q is not allowed because service account %s does not reference that secret", v.Secret.SecretName, sa.Name)
		}
	}
	var err error
	visitContainers(&pod.Spec, func(kind string, c *corev1.Container) {
		for _, e := range c.Env {
			if err == nil && e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !listed(e.ValueFrom.SecretKeyRef.Name) {
				err = forbidden(a, "%s %s with envVar %s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret",
					kind, c.Name, e.Name, e.ValueFrom.SecretKeyRef.Name, sa.Name)
			}
		}
		for _, e := range c.EnvFrom {
			if err == nil && e.SecretRef != nil && !listed(e.SecretRef.Name) {
				err = forbidden(a, "%s %s with envFrom referencing secret.secretName=%q is not allowed because service account %s does not reference that secret",
					kind, c.Name, e.SecretRef.Name, sa.Name)
			}
		}
	})
	for i, s := range pod.Spec.ImagePullSecrets {
		if err == nil && !slices.Contains(sa.ImagePullSecrets, s) {
			err = forbidden(a, "imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", i, s.Name, sa.Name)
		}
	}
	return err
}

// visitContainers visits all containers of a pod, ephemeral ones too, with the name of their kind.
func visitContainers(spec *corev1.PodSpec, visit func(kind string, c *corev1.Container)) {
	for i := range spec.InitContainers {
		visit("init container", &spec.InitContainers[i])
	}
	for i := range spec.Containers {
		visit("container", &spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		visit("ephemeral container", &c)
	}
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// validateMirror: a mirror pod shows what a node runs from a file; it must not be a way to reach what other pods have.
func validateMirror(a *admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return forbidden(a, "a mirror pod may not reference service accounts")
	}
	secrets := len(pod.Spec.ImagePullSecrets) > 0
	visitContainers(&pod.Spec, func(_ string, c *corev1.Container) {
		secrets = secrets || slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil }) ||
			slices.ContainsFunc(c.EnvFrom, func(e corev1.EnvFromSource) bool { return e.SecretRef != nil })
	})
	for _, v := range pod.Spec.Volumes {
		secrets = secrets || v.Secret != nil || v.CSI != nil && v.CSI.NodePublishSecretRef != nil
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return forbidden(a, "a mirror pod may not use ServiceAccountToken volume projections")
			}
			secrets = secrets || s.Secret != nil
		}
	}
	if secrets {
		return forbidden(a, "a mirror pod may not reference secrets")
	}
	return nil
}
