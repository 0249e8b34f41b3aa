package balance

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/services"
)

// healthServers answer load balancers that ask whether this node has an endpoint of a Service with
// externalTrafficPolicy Local (Service.spec.healthCheckNodePort). Plain HTTP is what load balancers speak there.
type healthServers struct {
	log     *slog.Logger
	servers map[api.Key]*healthServer
}

type healthServer struct {
	http  *http.Server
	port  uint16
	local atomic.Int64
	done  chan struct{}
}

func newHealthServers(log *slog.Logger) *healthServers {
	return &healthServers{log: log, servers: map[api.Key]*healthServer{}}
}

// set starts, changes or (want nil) stops the server of a Service.
func (h *healthServers) set(key api.Key, want *services.Health) {
	s := h.servers[key]
	if s != nil && (want == nil || want.Port != s.port) {
		s.close()
		delete(h.servers, key)
		s = nil
	}
	if want == nil {
		return
	}
	if s == nil {
		var err error
		if s, err = startHealthServer(key, want.Port); err != nil {
			h.log.Error("health check node port cannot be served", "service", key, "port", want.Port, "err", err)
			return
		}
		h.servers[key] = s
	}
	s.local.Store(int64(want.LocalEndpoints))
}

func (h *healthServers) close() {
	for _, s := range h.servers {
		s.close()
	}
	clear(h.servers)
}

func startHealthServer(key api.Key, port uint16) (*healthServer, error) {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	s := &healthServer{port: port, done: make(chan struct{})}
	s.http = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := s.local.Load()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", fmt.Sprint(n))
		if n == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(map[string]any{
			"service": map[string]string{"namespace": key.Namespace, "name": key.Name}, "localEndpoints": n, "serviceProxyHealthy": true})
	})}
	go func() {
		defer close(s.done)
		s.http.Serve(l)
	}()
	return s, nil
}

func (s *healthServer) close() {
	s.http.Close()
	<-s.done
}
