package machine

import (
	"runtime"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/version"
)

// Release is Knarr's version; release builds set it with -ldflags -X.
var Release = "0.1.0-dev"

// The Kubernetes release whose API Knarr speaks, and the oldest whose clients and data it takes, as Kubernetes counts them:
// the one before.
const (
	kubernetesMinor    = "37"
	compatibilityMinor = "36"
)

// KubernetesVersion is what /version answers: the API's version, with Knarr's own as build metadata.
func KubernetesVersion() version.Info {
	info, _ := debug.ReadBuildInfo() // nil in programs without modules, of which there are none
	return versionOf(info)
}

// versionOf is the version of a program that was built as info says.
func versionOf(info *debug.BuildInfo) version.Info {
	v := version.Info{
		Major: "1", Minor: kubernetesMinor, EmulationMajor: "1", EmulationMinor: kubernetesMinor,
		MinCompatibilityMajor: "1", MinCompatibilityMinor: compatibilityMinor,
		GitVersion: "v1." + kubernetesMinor + ".2+knarr" + Release, GitCommit: "unknown", GitTreeState: "archive",
		BuildDate: "1970-01-01T00:00:00Z", // Kubernetes' own answer where a build does not say
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info == nil {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit, v.GitTreeState = s.Value, "clean"
		case "vcs.time":
			v.BuildDate = s.Value // of the commit, so that the same source makes the same program
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.modified" && s.Value == "true" {
			v.GitTreeState = "dirty"
		}
	}
	return v
}
