package endpoint

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// serveLog is the container's log, with the query parameters that the API has.
func (e *Endpoint) serveLog(w http.ResponseWriter, r *http.Request) error {
	opts := &corev1.PodLogOptions{Container: r.PathValue("container")}
	q := r.URL.Query()
	flag := func(name string) bool { v, _ := strconv.ParseBool(q.Get(name)); return v }
	opts.Follow, opts.Previous, opts.Timestamps = flag("follow"), flag("previous"), flag("timestamps")
	for name, into := range map[string]**int64{"tailLines": &opts.TailLines, "sinceSeconds": &opts.SinceSeconds, "limitBytes": &opts.LimitBytes} {
		if v := q.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return apierrors.NewBadRequest(fmt.Sprintf("%s=%q is not a number of at least 0", name, v))
			}
			*into = &n
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return e.Logs(r.Context(), api.Key{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}, opts, flushing{w, http.NewResponseController(w)})
}

// flushing sends what is written at once, so that a log can be followed.
type flushing struct {
	w io.Writer
	c *http.ResponseController
}

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		_ = f.c.Flush() // where there is nothing to flush, it is sent at the end
	}
	return n, err
}
