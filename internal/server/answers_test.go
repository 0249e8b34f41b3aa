package server_test

import "testing"

func TestAnswersThatKubectlExpects(t *testing.T) {
	f := start(t)
	deployments := "/apis/apps/v1/namespaces/default/deployments"
	f.must("POST", deployments, deployment)
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	a := f.must("GET", deployments+"/web/scale", "", "Accept", table)
	for _, want := range []string{`"kind":"Table"`, `"name":"Desired"`, `"cells":["web",1,0,`, `"kind":"PartialObjectMetadata"`} {
		contains(t, a.Body, want)
	}
	contains(t, f.must("GET", deployments+"/web/scale?includeObject=Object", "", "Accept", table).Body, `"kind":"Scale"`)
}
