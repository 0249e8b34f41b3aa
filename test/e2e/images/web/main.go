// Command web is what the end-to-end tests run in pods: an HTTP server that says who it is and that can be told to behave
// badly.
//
// It listens on PORT (8080) for HTTP and for UDP, which it answers as /, and on GRPC_PORT (9090) for the gRPC health protocol. Paths:
//
//	/              "v1 web-abc 10.244.0.7:4711": version, host name, who asks
//	/env?name=X    the value of an environment variable; without name all of them
//	/file?path=X   the contents of a file
//	/api?path=X    what the API answers at X to the pod's service account, after the status code
//	/slow?for=2s   answers after that time
//	/healthz       200, or 503 after /fail
//	/fail?for=5s   makes /healthz and the gRPC health service fail, for that time or until /heal
//	/allocate?mb=N holds that much memory
//	/spin?for=5s   keeps one CPU busy
//	/work?for=5ms  answers when it has used that much processor time, however long that takes
//	/exit?code=N   ends the process
//
// On SIGTERM it finishes what it is answering and ends; no connection is refused before SIGTERM.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// version is set by the linker.
var version = "dev"

type server struct {
	hostname string
	failing  atomic.Int64 // until when, in Unix nanoseconds
	grpc     *health.Server

	mu   sync.Mutex
	held [][]byte
}

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
	log.Print("ended gracefully")
}

func run(ctx context.Context) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	s := &server{hostname: hostname, grpc: health.NewServer()}
	port, grpcPort := env("PORT", "8080"), env("GRPC_PORT", "9090")
	udp, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		return err
	}
	defer udp.Close()
	go s.answerUDP(udp)
	rpc, err := net.Listen("tcp", ":"+grpcPort)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, s.grpc)
	go func() { _ = g.Serve(rpc) }() // ends with the process
	web := &http.Server{Addr: ":" + port, Handler: s.routes()}
	failed := make(chan error, 1)
	go func() { failed <- web.ListenAndServe() }()
	log.Printf("%s %s listens on %s", version, hostname, port)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Print("told to end")
	grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	g.Stop()
	return web.Shutdown(grace)
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func (s *server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, version, s.hostname, r.RemoteAddr) })
	m.HandleFunc("GET /healthz", s.healthz)
	m.HandleFunc("GET /env", showEnv)
	m.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, r.FormValue("path")) })
	m.HandleFunc("GET /api", askAPI)
	m.HandleFunc("/slow", timed(func(_ *http.Request, d time.Duration) { time.Sleep(d) }))
	m.HandleFunc("/fail", timed(func(_ *http.Request, d time.Duration) { s.fail(d) }))
	m.HandleFunc("/heal", timed(func(*http.Request, time.Duration) { s.heal() }))
	m.HandleFunc("/spin", timed(func(_ *http.Request, d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
		}
	}))
	m.HandleFunc("/work", timed(func(_ *http.Request, d time.Duration) { work(d) }))
	m.HandleFunc("/allocate", s.allocate)
	m.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		log.Printf("told to exit with %d", code)
		os.Exit(code)
	})
	return m
}

// timed is a handler that does something for the time that the request's parameter for names.
func timed(do func(*http.Request, time.Duration)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		d := 24 * time.Hour
		if v := r.FormValue("for"); v != "" {
			var err error
			if d, err = time.ParseDuration(v); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		do(r, d)
		fmt.Fprintln(w, "done")
	}
}

// work uses d of processor time.
func work(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	used := func() time.Duration {
		var u syscall.Rusage
		const thread = 1 // RUSAGE_THREAD, getrusage(2)
		if err := syscall.Getrusage(thread, &u); err != nil {
			log.Panic(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for end := used() + d; used() < end; {
	}
}

func (s *server) fail(d time.Duration) {
	s.failing.Store(time.Now().Add(d).UnixNano())
	s.grpc.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	time.AfterFunc(d, func() {
		if time.Now().UnixNano() >= s.failing.Load() {
			s.heal()
		}
	})
}

func (s *server) heal() {
	s.failing.Store(0)
	s.grpc.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	if time.Now().UnixNano() < s.failing.Load() {
		http.Error(w, "told to fail", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func showEnv(w http.ResponseWriter, r *http.Request) {
	if name := r.FormValue("name"); name != "" {
		fmt.Fprintln(w, os.Getenv(name))
		return
	}
	fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
}

// askAPI asks the cluster's API as every client in a pod does
// (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/).
func askAPI(w http.ResponseWriter, r *http.Request) {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err1 := os.ReadFile(account + "token")
	ca, err2 := os.ReadFile(account + "ca.crt")
	req, err3 := http.NewRequestWithContext(r.Context(), http.MethodGet, "https://kubernetes.default.svc"+r.FormValue("path"), nil)
	if err := errors.Join(err1, err2, err3); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	req.Header.Set("Authorization", "Bearer "+string(token))
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	fmt.Fprintln(w, resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (s *server) allocate(w http.ResponseWriter, r *http.Request) {
	mb, err := strconv.Atoi(r.FormValue("mb"))
	if err != nil {
		http.Error(w, "mb: "+err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range mb {
		page := make([]byte, 1<<20)
		for i := range page {
			page[i] = 1 // touched, so that it counts
		}
		s.held = append(s.held, page)
	}
	fmt.Fprintln(w, len(s.held), "MiB held")
}

func (s *server) answerUDP(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s %s %s", version, s.hostname, from, buf[:n]), from)
		}
	}
}
