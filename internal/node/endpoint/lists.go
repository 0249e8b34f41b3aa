package endpoint

import (
	"net/http"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/pod"
)

// systemLogs is where a machine's own logs are.
const systemLogs = "/var/log"

// serveRunningPods lists what runs, as the runtime has it: names and images, nothing of the API.
func (e *Endpoint) serveRunningPods(w http.ResponseWriter, _ *http.Request) error {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, worker := range e.Pods.All() {
		if p, runs := runningPod(worker); runs {
			list.Items = append(list.Items, p)
		}
	}
	slices.SortFunc(list.Items, comparePods)
	return sendJSON(w, list)
}

// runningPod returns what runs of a pod, and reports whether anything does.
func runningPod(worker *pod.Worker) (corev1.Pod, bool) {
	obs, key := worker.Seen(), worker.Key()
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, UID: worker.UID()}}
	for i := range obs.Containers {
		if run := &obs.Containers[i]; run.State == lifecycle.Running {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: run.Name, Image: run.Image})
		}
	}
	sb := obs.Sandbox()
	return p, len(p.Spec.Containers) > 0 || sb != nil && sb.Ready
}

func comparePods(x, y corev1.Pod) int {
	return strings.Compare(x.Namespace+"/"+x.Name+"/"+string(x.UID), y.Namespace+"/"+y.Name+"/"+string(y.UID))
}

// serveSystemLogs serves the files of the machine's own logs (the kubelet's enableSystemLogHandler, on by default). Links lead nowhere but
// within the directory.
func (e *Endpoint) serveSystemLogs(w http.ResponseWriter, r *http.Request) {
	if e.Hollow {
		http.NotFound(w, r)
		return
	}
	root, err := os.OpenRoot(systemLogs)
	if err != nil {
		endpointError(w, err)
		return
	}
	defer root.Close()
	http.StripPrefix("/logs/", http.FileServerFS(root.FS())).ServeHTTP(w, r)
}
