package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// drive runs a container's probes over simulated time with scripted results and returns the health after each change, with the second.
func drive(tr *Tracker, until int, result func(k Kind, second int) bool) string {
	var out []string
	for s := 0; s <= until; s++ {
		now := t0.Add(time.Duration(s) * time.Second)
		due, _ := tr.Due(now)
		for _, k := range due {
			if tr.Result(k, result(k, s), now) {
				h := tr.Health()
				out = append(out, fmt.Sprintf("%d:%v,%v,%s", s, h.Started, h.Ready, h.Failed))
			}
		}
	}
	return strings.Join(out, " ")
}

func probe(period, initial, success, failure int32) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: period, InitialDelaySeconds: initial, SuccessThreshold: success, FailureThreshold: failure}
}

func TestTracker(t *testing.T) {
	yes := func(Kind, int) bool { return true }
	no := func(Kind, int) bool { return false }
	for _, tc := range []struct {
		name   string
		c      corev1.Container
		result func(Kind, int) bool
		want   string
	}{
		{"readiness", corev1.Container{ReadinessProbe: probe(5, 0, 1, 3)}, yes, "0:true,true,"},
		{"readiness after a delay", corev1.Container{ReadinessProbe: probe(5, 10, 1, 3)}, yes, "10:true,true,"},
		{"readiness needs two", corev1.Container{ReadinessProbe: probe(5, 0, 2, 3)}, yes, "5:true,true,"},
		{"readiness lost after three and found again", corev1.Container{ReadinessProbe: probe(5, 0, 1, 3)}, func(_ Kind, s int) bool { return s < 5 || s > 17 },
			"0:true,true, 15:true,false, 20:true,true,"},
		{"readiness never", corev1.Container{ReadinessProbe: probe(5, 0, 1, 3)}, no, ""},
		{"liveness fails at the third", corev1.Container{LivenessProbe: probe(5, 0, 1, 3)}, no, "10:true,true,liveness"},
		{"one failure is forgiven", corev1.Container{LivenessProbe: probe(5, 0, 1, 3)}, func(_ Kind, s int) bool { return s%10 == 5 }, ""},
		{"startup holds the others back", corev1.Container{StartupProbe: probe(5, 0, 1, 10), ReadinessProbe: probe(5, 0, 1, 3), LivenessProbe: probe(5, 0, 1, 1)},
			func(k Kind, s int) bool { return k != Startup || s > 12 }, "15:true,false, 16:true,true,"},
		{"startup fails", corev1.Container{StartupProbe: probe(5, 0, 1, 2)}, no, "5:false,true,startup"},
	} {
		if got := drive(New(&tc.c, "id", t0), 40, tc.result); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
	if New(&corev1.Container{}, "id", t0) != nil {
		t.Error("a container without probes has a tracker")
	}
}

func TestNextDueIsFarWhileNothingIs(t *testing.T) {
	tr := New(&corev1.Container{LivenessProbe: probe(30, 60, 1, 3)}, "id", t0)
	due, next := tr.Due(t0)
	if len(due) != 0 || next.Before(t0.Add(60*time.Second)) || next.After(t0.Add(60*time.Second)) {
		t.Errorf("due %v, next %s", due, next.Sub(t0))
	}
	if due, _ := tr.Due(next); len(due) != 1 {
		t.Errorf("due then: %v", due)
	}
	if due, next := tr.Due(next.Add(time.Hour)); len(due) != 0 || !next.IsZero() {
		t.Errorf("while it runs: %v %v", due, next)
	}
}

func TestOnlyReadinessOfWhatIsStopping(t *testing.T) {
	tr := New(&corev1.Container{LivenessProbe: probe(5, 0, 1, 1), ReadinessProbe: probe(5, 0, 1, 1)}, "id", t0)
	if due, _ := tr.Due(t0); len(due) != 2 {
		t.Fatalf("due at first: %v", due)
	}
	tr.SetStopping(true)
	if tr.Result(Liveness, false, t0) || !tr.Result(Readiness, true, t0) {
		t.Error("while it stops, only the result of the readiness probe counts")
	}
	now := t0.Add(time.Minute)
	if due, next := tr.Due(now); len(due) != 1 || due[0] != Readiness || !next.IsZero() {
		t.Errorf("due while it stops: %v, next %v", due, next)
	}
	tr.SetStopping(false)
	if due, _ := tr.Due(now); len(due) != 1 || due[0] != Liveness {
		t.Errorf("due when it could not be stopped: %v", due)
	}
}

func TestInherit(t *testing.T) {
	tr := New(&corev1.Container{StartupProbe: probe(5, 0, 1, 1), ReadinessProbe: probe(5, 0, 1, 3)}, "id", t0.Add(-time.Hour))
	tr.Inherit(true, true, t0)
	if h := tr.Health(); !h.Started || !h.Ready {
		t.Errorf("%+v", h)
	}
	if due, next := tr.Due(t0.Add(time.Minute)); len(due) != 1 || due[0] != Readiness || !next.IsZero() {
		t.Errorf("due %v next %v", due, next)
	}
}

// server answers on a port and returns it.
func server(t *testing.T, h http.Handler) (host string, port int32) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, _ := url.Parse(s.URL)
	n, _ := strconv.Atoi(u.Port())
	return u.Hostname(), int32(n)
}

func TestHTTPProbe(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "app.example" && r.Header.Get("X-A") == "1" && strings.HasPrefix(r.UserAgent(), "kube-probe/") {
			w.WriteHeader(200)
		} else {
			w.WriteHeader(400)
		}
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/x", http.StatusFound)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	host, port := server(t, mux)
	p := &Prober{Version: "1"}
	target := Target{PodIP: host, Container: &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: port}}}}
	for path, want := range map[string]string{"/ok": "true", "/none": "false HTTP probe failed with statuscode: 404", "/away": "true Probe terminated redirects, Response body: <a href", "/slow": "false"} {
		ok, out := p.Run(t.Context(), &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"),
			HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "app.example"}, {Name: "X-A", Value: "1"}}}}}, target)
		if got := fmt.Sprint(ok.OK(), " ", out); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		if warned := ok == Warned; warned != (path == "/away") {
			t.Errorf("%s: warned: %t", path, warned)
		}
	}
	ok, out := p.Run(t.Context(), &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("nope")}}}, target)
	if ok.OK() || !strings.Contains(out, `no port named "nope"`) {
		t.Errorf("%v %s", ok, out)
	}
}

func TestTCPAndGRPCProbes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, hs := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(s, hs)
	hs.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	port := int32(l.Addr().(*net.TCPAddr).Port)
	p, target := &Prober{}, Target{PodIP: "127.0.0.1", Container: &corev1.Container{}}
	run := func(h corev1.ProbeHandler) string {
		ok, out := p.Run(t.Context(), &corev1.Probe{TimeoutSeconds: 1, ProbeHandler: h}, target)
		return fmt.Sprint(ok.OK(), " ", out)
	}
	down := "down"
	for want, h := range map[string]corev1.ProbeHandler{
		"true ":                {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}},
		"true service healthy": {GRPC: &corev1.GRPCAction{Port: port}},
		`false service unhealthy (responded with "NOT_SERVING")`: {GRPC: &corev1.GRPCAction{Port: port, Service: &down}},
	} {
		if got := run(h); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	s.Stop()
	if got := run(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}); !strings.Contains(got, "connection refused") {
		t.Error(got)
	}
}

type execFunc func(cmd []string) (*runtime.ExecResult, error)

func (f execFunc) ExecSync(_ context.Context, _ string, cmd []string, _ time.Duration) (*runtime.ExecResult, error) {
	return f(cmd)
}

func TestExecProbe(t *testing.T) {
	p := &Prober{Exec: execFunc(func(cmd []string) (*runtime.ExecResult, error) {
		switch cmd[0] {
		case "slow":
			return nil, status.Error(codes.DeadlineExceeded, "x")
		case "bad":
			return &runtime.ExecResult{ExitCode: 1, Stderr: []byte("broken")}, nil
		}
		return &runtime.ExecResult{}, nil
	})}
	for cmd, want := range map[string]string{"good": "true ", "bad": "false broken", "slow": `false command timed out: "slow" timed out after 1s`} {
		ok, out := p.Run(t.Context(), &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}}, Target{})
		if got := fmt.Sprint(ok.OK(), " ", out); got != want {
			t.Errorf("%s: %s, want %s", cmd, got, want)
		}
	}
}
