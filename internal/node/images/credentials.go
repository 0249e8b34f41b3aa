package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"path"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// credentials returns the logins that the pod's imagePullSecrets have for an image, the most specific first.
func (im *Store) credentials(ctx context.Context, pod *corev1.Pod, image string) []*cri.AuthConfig {
	var all []login
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := im.Secrets.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			im.Events.Warning(pod, "", "FailedToRetrieveImagePullSecret",
				"Unable to retrieve some image pull secrets ("+ref.Name+"); attempting to pull the image may not succeed.")
			continue
		}
		all = append(all, logins(secret)...)
	}
	return matching(all, image)
}

// login is one entry of a docker configuration.
type login struct {
	registry string // host[:port][/path], host may hold *
	auth     *cri.AuthConfig
}

// logins reads a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg.
func logins(s *corev1.Secret) []login {
	type entry struct {
		Username, Password, Auth, IdentityToken, RegistryToken string
	}
	entries := map[string]entry{}
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]entry `json:"auths"`
		}
		if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file) != nil {
			return nil
		}
		entries = file.Auths
	case corev1.SecretTypeDockercfg:
		if json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries) != nil {
			return nil
		}
	}
	var out []login
	for registry, e := range entries {
		if e.Username == "" && e.Auth != "" {
			if b, err := base64.StdEncoding.DecodeString(strings.TrimRight(e.Auth, "\x00")); err == nil {
				e.Username, e.Password, _ = strings.Cut(string(b), ":")
			}
		}
		out = append(out, login{normalRegistry(registry), &cri.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}})
	}
	return out
}

func normalRegistry(r string) string {
	r = strings.TrimPrefix(strings.TrimPrefix(r, "https://"), "http://")
	r = strings.TrimSuffix(r, "/")
	for _, v := range []string{"/v1", "/v2"} {
		r = strings.TrimSuffix(r, v)
	}
	if r == "index.docker.io" || r == "registry-1.docker.io" {
		return "docker.io"
	}
	return r
}

// matching returns the logins for an image (docker.io/library/nginx:1), those that name the longest path first.
func matching(all []login, image string) []*cri.AuthConfig {
	host, rest, _ := strings.Cut(image, "/")
	var fit []login
	for _, l := range all {
		h, p, _ := strings.Cut(l.registry, "/")
		if ok, err := path.Match(h, host); err != nil || !ok {
			continue
		}
		if p == "" || rest == p || strings.HasPrefix(rest, p+"/") || strings.HasPrefix(rest, p+":") {
			fit = append(fit, l)
		}
	}
	sort.SliceStable(fit, func(i, j int) bool { return len(fit[i].registry) > len(fit[j].registry) })
	out := make([]*cri.AuthConfig, len(fit))
	for i, l := range fit {
		out[i] = l.auth
	}
	return out
}
