package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// Executor runs commands in containers.
type Executor interface {
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*runtime.ExecResult, error)
}

// Prober runs probes and HTTP life-cycle hooks.
type Prober struct {
	Exec Executor
	// Version is told to servers as kube-probe/VERSION.
	Version string
}

// Target is the container that is probed.
type Target struct {
	ContainerID, PodIP string
	Container          *corev1.Container
}

const maxBody = 10 * 1024

// Outcome is how one probe went.
type Outcome int

// Outcomes. A probe that warned has succeeded, and there is something to tell about it.
const (
	Failed Outcome = iota
	Succeeded
	Warned
)

// OK reports whether the probe counts as a success.
func (o Outcome) OK() bool { return o != Failed }

// Run runs one probe and returns how it went and what it saw.
func (p *Prober) Run(ctx context.Context, pr *corev1.Probe, t Target) (outcome Outcome, output string) {
	timeout := seconds(max(pr.TimeoutSeconds, 1))
	ok := false
	switch {
	case pr.HTTPGet != nil:
		return p.http(ctx, pr.HTTPGet, timeout, t)
	case pr.Exec != nil:
		ok, output = p.exec(ctx, pr.Exec.Command, timeout, t)
	case pr.TCPSocket != nil:
		ok, output = p.tcp(ctx, pr.TCPSocket, timeout, t)
	case pr.GRPC != nil:
		ok, output = p.grpc(ctx, pr.GRPC, timeout, t)
	default:
		output = "missing probe handler"
	}
	if ok {
		outcome = Succeeded
	}
	return outcome, output
}

func (p *Prober) exec(ctx context.Context, cmd []string, timeout time.Duration, t Target) (bool, string) {
	r, err := p.Exec.ExecSync(ctx, t.ContainerID, cmd, timeout)
	switch {
	case runtime.IsDeadlineExceeded(err):
		return false, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout)
	case err != nil:
		return false, err.Error()
	}
	out := clip(append(r.Stdout, r.Stderr...))
	return r.ExitCode == 0, out
}

func clip(b []byte) string {
	if len(b) > maxBody {
		b = b[:maxBody]
	}
	return string(b)
}

func (p *Prober) http(ctx context.Context, a *corev1.HTTPGetAction, timeout time.Duration, t Target) (Outcome, string) {
	code, body, err := p.Get(ctx, a, timeout, t)
	switch {
	case err != nil:
		return Failed, err.Error()
	case code >= 300 && code < 400: // somewhere else, where it was not followed
		return Warned, "Probe terminated redirects, Response body: " + body
	case code >= 200 && code < 300:
		return Succeeded, body
	}
	return Failed, fmt.Sprintf("HTTP probe failed with statuscode: %d", code)
}

// Get does an httpGet action.
func (p *Prober) Get(ctx context.Context, a *corev1.HTTPGetAction, timeout time.Duration, t Target) (code int, body string, err error) {
	port, err := port(a.Port, t.Container)
	if err != nil {
		return 0, "", err
	}
	host := a.Host
	if host == "" {
		host = t.PodIP
	}
	scheme := strings.ToLower(string(a.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("User-Agent", "kube-probe/"+p.Version)
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	// Every probe uses a connection of its own, so that a server that is stuck accepting is noticed.
	tr := &http.Transport{DisableKeepAlives: true, Proxy: nil, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	client := &http.Client{Transport: tr, CheckRedirect: sameHost(u.Hostname())}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, string(b), nil
}

// sameHost follows redirects within the host only: a redirect elsewhere says that the server answers.
func sameHost(host string) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if req.URL.Hostname() != host {
			return http.ErrUseLastResponse
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
}

func (p *Prober) tcp(ctx context.Context, a *corev1.TCPSocketAction, timeout time.Duration, t Target) (bool, string) {
	n, err := port(a.Port, t.Container)
	if err != nil {
		return false, err.Error()
	}
	host := a.Host
	if host == "" {
		host = t.PodIP
	}
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(n)))
	if err != nil {
		return false, err.Error()
	}
	conn.Close()
	return true, ""
}

// grpc asks the standard health service (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
func (p *Prober) grpc(ctx context.Context, a *corev1.GRPCAction, timeout time.Duration, t Target) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addr := net.JoinHostPort(t.PodIP, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/"+p.Version))
	if err != nil {
		return false, err.Error()
	}
	defer conn.Close()
	var service string
	if a.Service != nil {
		service = *a.Service
	}
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.WaitForReady(false))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return false, "this server does not implement the grpc health protocol (grpc.health.v1.Health): " + err.Error()
	case status.Code(err) == codes.DeadlineExceeded:
		return false, fmt.Sprintf("timeout: failed to connect service %q within %s: %v", addr, timeout, err)
	case err != nil:
		return false, fmt.Sprintf("error: health rpc probe failed: %v", err)
	case resp.Status != grpc_health_v1.HealthCheckResponse_SERVING:
		return false, fmt.Sprintf("service unhealthy (responded with %q)", resp.Status)
	}
	return true, "service healthy"
}

// port resolves a port by number or by the name of one of the container's ports.
func port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		return p.IntValue(), nil
	}
	for _, cp := range c.Ports {
		if cp.Name == p.StrVal {
			return int(cp.ContainerPort), nil
		}
	}
	n, err := strconv.Atoi(p.StrVal)
	if err != nil {
		return 0, fmt.Errorf("container %s has no port named %q", c.Name, p.StrVal)
	}
	return n, nil
}
