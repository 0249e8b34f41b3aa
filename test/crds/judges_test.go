package crds

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The project network-policy-api checks its definitions with objects that have to be taken and objects that have to be refused.
func TestNetworkPolicyAPI(t *testing.T) {
	for _, channel := range []string{"standard", "experimental"} {
		t.Run(channel, func(t *testing.T) {
			c := start(t)
			c.install(filepath.Join(moduleDir(t, "sigs.k8s.io/network-policy-api"), "config", "crd", channel))
			passed := c.goTest(".", nil, "sigs.k8s.io/network-policy-api/pkg/crdtest", "-kubeConfig="+c.kubeconfig)
			if passed < 10 {
				t.Errorf("only %d tests passed", passed)
			}
		})
	}
}

// Gateway API's examples are taken, and its invalid ones refused, with its definitions of both channels: what its test of definitions asks.
func TestGatewayAPIExamples(t *testing.T) {
	dir := moduleDir(t, "sigs.k8s.io/gateway-api")
	for _, channel := range []string{"standard", "experimental"} {
		t.Run(channel, func(t *testing.T) {
			c := start(t)
			c.install(filepath.Join(dir, "config", "crd", channel))
			c.must("apply", "--recursive", "--filename", filepath.Join(dir, "examples", "standard"))
			if channel == "experimental" {
				c.must("apply", "--recursive", "--filename", filepath.Join(dir, "examples", channel))
			}
			refused := 0
			err := filepath.WalkDir(filepath.Join(dir, "hack", "invalid-examples"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" || channel == "standard" && strings.Contains(path, "experimental") {
					return err
				}
				out, err := c.kubectl("apply", "--filename", path)
				if err == nil || !invalid(out) {
					t.Errorf("%s: %v\n%s", path, err, out)
				}
				refused++
				return nil
			})
			if err != nil || refused < 10 {
				t.Errorf("%d examples were refused; %v", refused, err)
			}
		})
	}
}

// invalid reports whether kubectl says that an object breaks a rule.
func invalid(out string) bool {
	for _, want := range []string{"is invalid", "missing required field", "denied request", "Invalid value"} {
		if strings.Contains(out, want) {
			return true
		}
	}
	return false
}

// Gateway API's tests of its CEL rules stand in a module that nobody publishes: GATEWAY_API is a checkout of the project's release that go.mod names.
func TestGatewayAPIRules(t *testing.T) {
	dir := os.Getenv("GATEWAY_API")
	if dir == "" {
		t.Skip("GATEWAY_API names no checkout of sigs.k8s.io/gateway-api")
	}
	for channel, least := range map[string]int{"standard": 150, "experimental": 200} {
		t.Run(channel, func(t *testing.T) {
			c := start(t)
			c.install(filepath.Join(dir, "config", "crd", channel))
			args := []string{"./cel"}
			if channel == "experimental" {
				args = append(args, "-tags", "experimental")
			}
			if passed := c.goTest(filepath.Join(dir, "tests"), []string{"CRD_CHANNEL=" + channel}, args...); passed < least {
				t.Errorf("only %d tests passed", passed)
			} else {
				t.Logf("%d tests passed", passed)
			}
		})
	}
}
