// Command web is the guestbook's front end: a page with a form, its entries in Redis. It is configured by environment
// variables, as the manifest shows, and has the two endpoints that Kubernetes' probes want.
package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set when the image is built.
var version = "dev"

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	if err := serve(log); err != nil {
		log.Error("guestbook failed", "err", err)
		os.Exit(1)
	}
}

func serve(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	book := &book{
		title:   cmp.Or(os.Getenv("TITLE"), "Guestbook"),
		pod:     cmp.Or(os.Getenv("POD_NAME"), hostname()),
		node:    os.Getenv("NODE_NAME"),
		version: version,
		log:     log,
		redis:   newRedis(address(cmp.Or(os.Getenv("REDIS_HOST"), "redis")), os.Getenv("REDIS_PASSWORD")),
		now:     time.Now,
	}
	server := &http.Server{Addr: cmp.Or(os.Getenv("LISTEN"), ":8080"), Handler: book.handler(), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Info("guestbook serves", "address", server.Addr, "version", version, "pod", book.pod)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// New connections go elsewhere as soon as the endpoint is marked as terminating everywhere; until then they are still
	// welcome. The pod's grace period is the upper bound of all this.
	log.Info("guestbook stops", "pod", book.pod)
	book.stopping.Store(true)
	time.Sleep(2 * time.Second)
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// address adds Redis' port where none is given.
func address(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(host, "6379")
}
