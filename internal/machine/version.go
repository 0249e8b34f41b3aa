package machine

import (
	"runtime"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/version"
)

// Release is Knarr's version; release builds set it with -ldflags -X.
var Release = "0.1.0-dev"

// kubernetesMinor is the Kubernetes release whose API Knarr speaks.
const kubernetesMinor = "37"

// KubernetesVersion is what /version answers: the API's version, with Knarr's own as build metadata.
func KubernetesVersion() version.Info {
	return version.Info{
		Major: "1", Minor: kubernetesMinor,
		GitVersion: "v1." + kubernetesMinor + ".2+knarr" + Release, GitCommit: revision(), GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}
