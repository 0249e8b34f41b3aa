package manifests

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Plugins that take manifests, by the names that an AdmissionConfiguration gives them.
const (
	ValidatingWebhooks = "ValidatingAdmissionWebhook"
	MutatingWebhooks   = "MutatingAdmissionWebhook"
	ValidatingPolicies = "ValidatingAdmissionPolicy"
	MutatingPolicies   = "MutatingAdmissionPolicy"
)

// kinds are the kinds of the plugins' own configurations.
var kinds = map[string]string{
	ValidatingWebhooks: "WebhookAdmissionConfiguration", MutatingWebhooks: "WebhookAdmissionConfiguration",
	ValidatingPolicies: "ValidatingAdmissionPolicyConfiguration", MutatingPolicies: "MutatingAdmissionPolicyConfiguration",
}

// configGroupVersion is that of all these configurations.
const configGroupVersion = "apiserver.config.k8s.io/v1"

// admissionConfiguration is apiserver.config.k8s.io/v1 AdmissionConfiguration.
type admissionConfiguration struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Plugins    []struct {
		Name          string                `json:"name"`
		Path          string                `json:"path,omitempty"`
		Configuration *runtime.RawExtension `json:"configuration,omitempty"`
	} `json:"plugins,omitempty"`
}

// pluginConfiguration is any of the configurations of plugins.
type pluginConfiguration struct {
	APIVersion         string `json:"apiVersion"`
	Kind               string `json:"kind"`
	KubeConfigFile     string `json:"kubeConfigFile,omitempty"`
	StaticManifestsDir string `json:"staticManifestsDir,omitempty"`
}

// ReadConfiguration reads an AdmissionConfiguration from a file and returns the directory of each plugin that has one. Plugins and settings
// that Knarr does not have are errors.
func ReadConfiguration(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c admissionConfiguration
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if c.APIVersion != configGroupVersion || c.Kind != "AdmissionConfiguration" {
		return nil, fmt.Errorf("%s is %s %s: want %s AdmissionConfiguration", file, c.APIVersion, c.Kind, configGroupVersion)
	}
	dirs := map[string]string{}
	for _, p := range c.Plugins {
		kind, known := kinds[p.Name]
		if !known {
			return nil, fmt.Errorf("%s: plugin %q takes no configuration: there are %s, %s, %s and %s", file, p.Name,
				ValidatingWebhooks, MutatingWebhooks, ValidatingPolicies, MutatingPolicies)
		}
		if _, twice := dirs[p.Name]; twice {
			return nil, fmt.Errorf("%s: plugin %s is named twice", file, p.Name)
		}
		own := []byte(nil)
		switch {
		case p.Configuration != nil: // goes before the path, as in kube-apiserver
			own = p.Configuration.Raw
		case p.Path != "":
			path := p.Path
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if own, err = os.ReadFile(path); err != nil {
				return nil, fmt.Errorf("%s: plugin %s: %w", file, p.Name, err)
			}
		default:
			continue
		}
		dir, err := directory(own, kind)
		if err != nil {
			return nil, fmt.Errorf("%s: plugin %s: %w", file, p.Name, err)
		}
		if dir != "" {
			dirs[p.Name] = dir
		}
	}
	return dirs, nil
}

// directory returns the directory that the configuration of a plugin names, "" if it names none.
func directory(text []byte, kind string) (string, error) {
	var c pluginConfiguration
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return "", err
	}
	switch {
	case c.APIVersion != configGroupVersion || c.Kind != kind:
		return "", fmt.Errorf("the configuration is %s %s: want %s %s", c.APIVersion, c.Kind, configGroupVersion, kind)
	case c.KubeConfigFile != "":
		return "", fmt.Errorf("kubeConfigFile: Knarr shows webhooks no credentials of its own")
	case c.StaticManifestsDir == "":
		return "", nil
	case !filepath.IsAbs(c.StaticManifestsDir):
		return "", fmt.Errorf("staticManifestsDir: Invalid value: %q: must be an absolute file path", c.StaticManifestsDir)
	}
	info, err := os.Stat(c.StaticManifestsDir)
	if err != nil {
		return "", fmt.Errorf("staticManifestsDir: Invalid value: %q: unable to read: %w", c.StaticManifestsDir, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("staticManifestsDir: Invalid value: %q: must be a directory", c.StaticManifestsDir)
	}
	return c.StaticManifestsDir, nil
}
