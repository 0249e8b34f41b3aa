package history

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Server is one way to the cluster.
type Server struct {
	Name   string
	URL    string // such as https://10.0.0.1:6443
	Client *http.Client
}

// NewServer returns a Server that is reached with its own connections, one per request under way: a request that is given up
// closes its connection, so that one which leads nowhere is not used again.
func NewServer(name, url string, conf *tls.Config) Server {
	return Server{Name: name, URL: url, Client: &http.Client{Transport: &http.Transport{
		TLSClientConfig:     conf,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // no HTTP/2
		DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
		TLSHandshakeTimeout: 2 * time.Second,
		MaxIdleConnsPerHost: 64,
	}}}
}

// object is what is read and written of a ConfigMap.
type object struct {
	APIVersion string            `json:"apiVersion,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Metadata   metadata          `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	Items      []object          `json:"items,omitempty"`
}

type metadata struct {
	Name            string `json:"name,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

// status is what is read of a metav1.Status.
type status struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Code    int    `json:"code"`
}

func (o *object) version() Version {
	return Version{Value: o.Data["value"], Rev: parseRev(o.Metadata.ResourceVersion)}
}

func parseRev(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1 // checked: no revision is below 1
	}
	return n
}

func collection(namespace string) string { return "/api/v1/namespaces/" + namespace + "/configmaps" }

// do carries out an operation at the server and notes in it what came of it.
func (s Server) do(ctx context.Context, namespace string, o *Op) {
	method, path, body := request(namespace, o)
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		o.Outcome, o.Reason = NotSent, err.Error()
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := s.Client.Do(req)
	if err != nil {
		o.Outcome, o.Reason = Unknown, err.Error()
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			o.Outcome = NotSent
		}
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		o.Outcome, o.Reason = Unknown, fmt.Sprintf("%s, and then %v", resp.Status, err)
		return
	}
	o.answered(resp.StatusCode, answer)
}

// request is an operation as HTTP has it.
func request(namespace string, o *Op) (method, path string, body []byte) {
	all := collection(namespace)
	one := all + "/" + url.PathEscape(o.Key)
	var content any
	switch o.Kind {
	case Create, Update:
		m := metadata{Name: o.Key}
		method, path = http.MethodPost, all
		if o.Kind == Update {
			m.ResourceVersion = strconv.FormatInt(o.Expect.Rev, 10)
			method, path = http.MethodPut, one
		}
		content = object{APIVersion: "v1", Kind: "ConfigMap", Metadata: m, Data: map[string]string{"value": o.Value}}
	case Delete:
		method, path = http.MethodDelete, one
		content = map[string]any{"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": map[string]string{"resourceVersion": strconv.FormatInt(o.Expect.Rev, 10)}}
	case Read:
		return http.MethodGet, one, nil
	case List:
		return http.MethodGet, all, nil
	}
	body, _ = json.Marshal(content) // maps of strings
	return method, path, body
}

// answered notes an answer.
func (o *Op) answered(code int, body []byte) {
	if code >= 300 {
		var st status
		_ = json.Unmarshal(body, &st) // some answers from 500 on are no Status
		o.refused(code, st, body)
		return
	}
	var obj object
	if err := json.Unmarshal(body, &obj); err != nil {
		o.Outcome, o.Reason = Unknown, fmt.Sprintf("%d with a body that is no object: %v", code, err)
		return
	}
	o.Outcome = Done
	switch o.Kind {
	case Create, Update, Read:
		o.Found = obj.version()
	case List:
		o.Rev = parseRev(obj.Metadata.ResourceVersion)
		o.Items = make(map[string]Version, len(obj.Items))
		for _, item := range obj.Items {
			if v := item.version(); v.Value != "" { // others' ConfigMaps, such as kube-root-ca.crt
				o.Items[item.Metadata.Name] = v
			}
		}
	}
}

func (o *Op) refused(code int, st status, body []byte) {
	o.Outcome, o.Reason = Refused, st.Reason
	switch {
	case code == http.StatusNotFound && o.Kind == Read && st.Reason == NotFound:
		o.Outcome = Done // there is none
	case code == http.StatusNotFound && st.Reason == NotFound, code == http.StatusConflict && (st.Reason == AlreadyExists || st.Reason == Conflict):
	case code == http.StatusTooManyRequests:
		o.Outcome = NotSent
	case code >= 500:
		o.Outcome, o.Reason = Unknown, fmt.Sprintf("%d %s", code, strings.TrimSpace(st.Reason+" "+st.Message))
	default:
		o.Reason = fmt.Sprintf("%d %s", code, bytes.TrimSpace(body)) // checked: nothing else is to be expected
	}
}
