// Command kubectl is Kubernetes' own kubectl, unmodified, built from its library so that a Knarr installation has one for
// users who have none. It is a module of its own: nothing of it is linked into Knarr.
package main

import (
	_ "k8s.io/client-go/plugin/pkg/client/auth" // exec and OIDC credentials in kubeconfig
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	command := cmd.NewDefaultKubectlCommand()
	if err := cli.RunNoErrOutput(command); err != nil {
		util.CheckErr(err)
	}
}
