package hollow

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestContainersOfJobsEnd(t *testing.T) {
	if b := behave(&cri.PodSandboxConfig{Labels: map[string]string{"app": "web"}}, nil); b.RunsFor != 0 {
		t.Errorf("a container of a Deployment runs for %v", b.RunsFor)
	}
	if b := behave(&cri.PodSandboxConfig{Labels: map[string]string{batchv1.JobNameLabel: "sum"}}, nil); b.RunsFor <= 0 || b.ExitCode != 0 {
		t.Errorf("a container of a Job runs for %v and ends with %d", b.RunsFor, b.ExitCode)
	}
}
