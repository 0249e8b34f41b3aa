package e2e

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/image"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/node/containerd"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// TestMain makes the test executable its own containerd child, as knarr is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "containerd" {
		if err := containerd.Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "containerd:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	testImage  = "docker.io/knarr/test:1"
	testCgroup = "/knarr-agent-test"
)

type logTo struct{ t *testing.T }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// world is one machine with a runtime, an agent and the API it follows.
type world struct {
	t     *testing.T
	c     *client.Local
	dir   string
	rt    *runtime.CRI
	agent *node.Agent
	stop  func()
	// tokens counts how often a token was asked for.
	mu     sync.Mutex
	tokens int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getenv("KNARR_E2E") != "1" {
		t.Skip("starts containerd and real containers, which needs root and bin/libexec (make libexec): set KNARR_E2E=1")
	}
	libexec, err := filepath.Abs("../../../bin/libexec")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kn-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := containerd.Purge(context.Background(), dir, testCgroup); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	log := slog.New(slog.NewTextHandler(logTo{t}, nil))
	s, err := containerd.New(containerd.Options{DataDir: dir, Libexec: libexec, Command: []string{os.Args[0], "containerd"}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("containerd: %v", err)
		}
	})
	ready, cancelReady := context.WithTimeout(ctx, 30*time.Second)
	defer cancelReady()
	if err := s.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	importImage(t, s.Endpoint())
	rt, err := runtime.NewCRI(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	w := &world{t: t, c: clienttest.New(t), dir: dir, rt: rt}
	clienttest.Create(t, w.c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}})
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start runs an agent until stop.
func (w *world) start() {
	w.t.Helper()
	a, err := node.New(node.Config{NodeName: "n1", DataDir: w.dir, Client: w.c, Runtime: w.rt, Tokens: w.token, NodeIPs: []string{"127.0.0.1"},
		CgroupRoot: testCgroup, Logger: slog.New(slog.NewTextHandler(logTo{w.t}, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.agent = a
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("agent: %v", err)
		}
	})
}

func (w *world) token(_ context.Context, ns, sa string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tokens++
	out := req.DeepCopy()
	out.Status.Token = fmt.Sprintf("token-%d of %s/%s", w.tokens, ns, sa)
	out.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second))
	return out, nil
}

// importImage puts an image with busybox in.
func importImage(t *testing.T, endpoint string) {
	t.Helper()
	ctx := context.Background()
	links := map[string]string{}
	for _, n := range strings.Fields("sh sleep cat true id ls rm stat echo head httpd nc mkdir touch dd hostname kill") {
		links["/bin/"+n] = "busybox"
	}
	built, err := image.Build(ctx, ".", &image.Spec{
		Names:  []string{testImage},
		Layers: []image.Layer{{Debs: &image.Debs{Packages: []string{"busybox-static"}}, Dirs: []image.Dir{{Path: "/tmp", Mode: 0o1777}}, Links: links}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := image.Write(&b, built); err != nil {
		t.Fatal(err)
	}
	store, err := image.OpenStore(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Import(ctx, &b, ""); err != nil {
		t.Fatal(err)
	}
}

// pod returns a pod with host network whose container c runs a shell script.
func pod(name, script string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{
		NodeName: "n1", HostNetwork: true, RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: ptr(int64(2)),
		Containers: []corev1.Container{{Name: "c", Image: testImage, Command: []string{"/bin/sh", "-c", script}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func (w *world) create(objs ...api.Object) {
	w.t.Helper()
	for _, o := range objs {
		if _, err := w.c.Create(w.t.Context(), o); err != nil {
			w.t.Fatalf("creating %s: %v", o.GetName(), err)
		}
	}
}

// until waits until ok says yes of the pod, and fails with the pod's state.
func (w *world) until(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	watch, err := clienttest.Watch[*corev1.Pod](ctx, w.c, client.ListOptions{Namespace: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	defer watch.Stop()
	var last *corev1.Pod
	for {
		batch, err := watch.Next(ctx)
		if err != nil {
			w.t.Fatalf("pod %s is not %s: %+v\nevents:\n%s", name, what, statusOf(last), w.events(name))
		}
		if batch.Full && ok(nil) && !slices.ContainsFunc(batch.Events, func(e client.Event) bool { return e.Object.GetName() == name }) {
			return nil
		}
		for _, e := range batch.Events {
			if e.Object.GetName() != name {
				continue
			}
			last = e.Object.(*corev1.Pod)
			if e.Type == client.Deleted {
				last = nil
			}
			if ok(last) {
				return last
			}
		}
	}
}

func statusOf(p *corev1.Pod) any {
	if p == nil {
		return "gone"
	}
	return p.Status
}

func (w *world) events(name string) string {
	var b strings.Builder
	list, _ := client.List[*corev1.Event](context.Background(), w.c, client.ListOptions{Namespace: "default"})
	for _, e := range list {
		if e.InvolvedObject.Name == name {
			fmt.Fprintf(&b, "%s %s x%d: %s\n", e.Type, e.Reason, e.Count, e.Message)
		}
	}
	return b.String()
}

func running(p *corev1.Pod) bool { return p != nil && p.Status.Phase == corev1.PodRunning && ready(p) }

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func ended(p *corev1.Pod) bool {
	return p != nil && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed)
}

func (w *world) logs(name string, change ...func(*corev1.PodLogOptions)) string {
	w.t.Helper()
	o := &corev1.PodLogOptions{}
	for _, f := range change {
		f(o)
	}
	var b bytes.Buffer
	if err := w.agent.Logs(w.t.Context(), api.Key{Namespace: "default", Name: name}, o, &b); err != nil {
		w.t.Fatalf("logs of %s: %v", name, err)
	}
	return b.String()
}

// script runs a pod to its end and returns what it printed.
func (w *world) script(p *corev1.Pod) (string, *corev1.Pod) {
	w.t.Helper()
	w.create(p)
	end := w.until(p.Name, "ended", ended)
	return w.logs(p.Name), end
}

func (w *world) delete(name string) {
	w.t.Helper()
	if err := client.Delete[*corev1.Pod](w.t.Context(), w.c, api.Key{Namespace: "default", Name: name}, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.until(name, "gone", func(p *corev1.Pod) bool { return p == nil })
	w.rest(name)
}

// rest waits until the agent has nothing left of the pod: one that was deleted after its end is gone from the API at once.
func (w *world) rest(name string) {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		list, err := w.rt.ListPodSandbox(w.t.Context(), nil)
		left := err != nil
		for _, s := range list {
			left = left || s.Metadata.Name == name
		}
		logs, _ := filepath.Glob(filepath.Join(w.dir, "pods-logs", "default_"+name+"_*"))
		if !left && len(logs) == 0 {
			return
		}
		select {
		case <-deadline:
			w.t.Fatalf("of pod %s is left: sandboxes %v, logs %v, %v", name, list, logs, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func portOf(n int) intstr.IntOrString { return intstr.FromInt32(int32(n)) }
