//go:build tools

package crds

// What the tests of other projects are built from.
import (
	_ "github.com/fsnotify/fsnotify"
	_ "sigs.k8s.io/controller-runtime/pkg/envtest"
	_ "sigs.k8s.io/gateway-api/apis/v1"
	_ "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)
