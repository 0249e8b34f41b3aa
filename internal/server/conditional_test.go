package server_test

import (
	"strings"
	"testing"
)

// TestConditionalUpdates: a PUT of some kinds must name the version that it is based on; patches bring it along.
func TestConditionalUpdates(t *testing.T) {
	f := start(t)
	const path, body = "/apis/storage.k8s.io/v1/csidrivers", `{"metadata":{"name":"a.example"},"spec":{"attachRequired":true}}`
	f.must("POST", path, body)
	a := f.do("PUT", path+"/a.example", body)
	if reason, message := a.status(t); a.Code != 422 || reason != "Invalid" || !strings.Contains(message, "metadata.resourceVersion: Invalid value") || !strings.Contains(message, "must be specified for an update") {
		t.Errorf("PUT without a version: %d %s %s", a.Code, reason, message)
	}
	f.must("PATCH", path+"/a.example", `{"metadata":{"labels":{"a":"b"}}}`, "Content-Type", "application/merge-patch+json")
	contains(t, f.must("PATCH", path+"/a.example?fieldManager=x&force=true", `{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"a.example"},"spec":{"podInfoOnMount":true}}`,
		"Content-Type", "application/apply-patch+yaml").Body, `"podInfoOnMount":true`)
	f.must("POST", "/apis/storage.k8s.io/v1/storageclasses", `{"metadata":{"name":"a"},"provisioner":"x.example"}`)
	f.must("PUT", "/apis/storage.k8s.io/v1/storageclasses/a", `{"metadata":{"name":"a","labels":{"a":"b"}},"provisioner":"x.example"}`)
}
