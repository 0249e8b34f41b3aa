package client

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Counted returns a transport that counts what goes through next, under the names that client-go's clients have for it
// (rest_client_*).
func Counted(next http.RoundTripper, into prometheus.Registerer) http.RoundTripper {
	c := &counted{
		next: next,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rest_client_requests_total", Help: "Requests to the API by status, method and host.",
		}, []string{"code", "method", "host"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rest_client_request_duration_seconds", Help: "Time until the API begins to answer.",
			Buckets: []float64{.005, .025, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60},
		}, []string{"verb", "host"}),
	}
	into.MustRegister(c.requests, c.seconds)
	return c
}

type counted struct {
	next     http.RoundTripper
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// RoundTrip implements http.RoundTripper.
func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	begun := time.Now()
	resp, err := c.next.RoundTrip(r)
	code := "<error>" // as client-go says it
	if err == nil {
		code = strconv.Itoa(resp.StatusCode)
	}
	c.requests.WithLabelValues(code, r.Method, r.URL.Host).Inc()
	c.seconds.WithLabelValues(r.Method, r.URL.Host).Observe(time.Since(begun).Seconds())
	return resp, err
}
