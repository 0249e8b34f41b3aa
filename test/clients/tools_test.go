//go:build tools

package clients

import _ "helm.sh/helm/v4/pkg/action" // helm_test.go builds Helm's own command
