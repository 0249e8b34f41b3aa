package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

const mediaType = "application/vnd.kubernetes.protobuf"

// requestTime bounds a request that is no watch; the server answers within a minute or says that it cannot.
const requestTime = 65 * time.Second

// codec is the protobuf form of API objects on the wire.
func codec() *protobuf.Serializer { return protobuf.NewSerializer(api.Scheme, api.Scheme) }

// path returns the URL of a resource's collection, an object or a subresource.
func (r *Remote) path(res *api.Resource, namespace, name, sub string) *url.URL {
	parts := []string{"api", res.Version}
	if res.Group != "" {
		parts = []string{"apis", res.Group, res.Version}
	}
	if res.Namespaced && namespace != "" {
		parts = append(parts, "namespaces", namespace)
	}
	parts = append(parts, res.Plural)
	for _, p := range []string{name, sub} {
		if p != "" {
			parts = append(parts, url.PathEscape(p))
		}
	}
	return r.base.JoinPath(parts...)
}

// do sends one request and returns the answer's body. What the server refuses is an API status.
func (r *Remote) do(ctx context.Context, method string, u *url.URL, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for try := 0; ; try++ {
		resp, err := r.open(ctx, method, u, body, mediaType)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // everything has been read
		if err != nil {
			return nil, fmt.Errorf("%s %s: reading the answer: %w", method, u.Path, err)
		}
		if resp.StatusCode < 300 {
			return b, nil
		}
		wait, err2 := strconv.Atoi(resp.Header.Get("Retry-After"))
		// 429 means that the server did not begin: even a write may be sent again.
		if resp.StatusCode == http.StatusTooManyRequests && err2 == nil && try < 5 {
			select {
			case <-time.After(time.Duration(max(wait, 1)) * time.Second):
				continue
			case <-ctx.Done():
			}
		}
		return nil, statusError(resp, b, method, u)
	}
}

func (r *Remote) open(ctx context.Context, method string, u *url.URL, body []byte, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", r.cfg.UserAgent)
	if len(body) > 0 {
		req.Header.Set("Content-Type", mediaType)
	} else {
		req.Body = nil
	}
	return r.cfg.Transport.RoundTrip(req)
}

// statusError reads the status with which the server refused.
func statusError(resp *http.Response, body []byte, method string, u *url.URL) error {
	if obj, _, err := codec().Decode(body, nil, nil); err == nil {
		if st, ok := obj.(*metav1.Status); ok {
			return apierrors.FromObject(st)
		}
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, method, schema.GroupResource{}, u.Path, strings.TrimSpace(string(body[:min(len(body), 1024)])), 0, true)
}

// decodeObject reads one object of a resource, as the shared copy would hold it.
func decodeObject(res *api.Resource, b []byte) (api.Object, error) {
	o, err := spec(res).Decode(b)
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (r *Remote) get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error) {
	b, err := r.do(ctx, http.MethodGet, r.path(res, key.Namespace, key.Name, ""), nil)
	if err != nil {
		return nil, err
	}
	return decodeObject(res, b)
}

// list asks for everything a selection chooses, and returns it with its revision.
func (r *Remote) list(ctx context.Context, sel selection) ([]api.Object, int64, error) {
	u := r.path(sel.res, sel.namespace, "", "")
	u.RawQuery = sel.query().Encode()
	b, err := r.do(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, 0, err
	}
	list := sel.res.NewList()
	if _, _, err := codec().Decode(b, nil, list); err != nil {
		return nil, 0, fmt.Errorf("reading the list of %s: %w", sel.res.Plural, err)
	}
	var out []api.Object
	err = meta.EachListItem(list, func(o runtime.Object) error {
		// One object that is kept must not keep the others of its list.
		obj := o.DeepCopyObject().(api.Object)
		obj.GetObjectKind().SetGroupVersionKind(sel.res.GroupVersionKind)
		out = append(out, obj)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, 0, err
	}
	rev, err := strconv.ParseInt(m.GetResourceVersion(), 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("the list of %s has resourceVersion %q, which is no number: %w", sel.res.Plural, m.GetResourceVersion(), err)
	}
	return out, rev, nil
}

// send writes an object and returns what the server stored.
func (r *Remote) send(ctx context.Context, method string, u *url.URL, res *api.Resource, obj api.Object) (api.Object, error) {
	body, err := encode(obj, res.GroupVersionKind)
	if err != nil {
		return nil, err
	}
	b, err := r.do(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	return decodeObject(res, b)
}

// encode returns obj's wire form. obj may be shared: it is not changed.
func encode(obj runtime.Object, gvk schema.GroupVersionKind) ([]byte, error) {
	if obj.GetObjectKind().GroupVersionKind() != gvk {
		obj = obj.DeepCopyObject()
		obj.GetObjectKind().SetGroupVersionKind(gvk)
	}
	var buf bytes.Buffer
	if err := codec().Encode(obj, &buf); err != nil {
		return nil, fmt.Errorf("encoding a %s: %w", gvk.Kind, err)
	}
	return buf.Bytes(), nil
}

// post sends an object of a kind that is exchanged, not stored.
func (r *Remote) post(ctx context.Context, u *url.URL, gvk schema.GroupVersionKind, obj runtime.Object) (runtime.Object, error) {
	body, err := encode(obj, gvk)
	if err != nil {
		return nil, err
	}
	b, err := r.do(ctx, http.MethodPost, u, body)
	if err != nil {
		return nil, err
	}
	out, _, err := codec().Decode(b, nil, nil)
	return out, err
}

func (r *Remote) delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error {
	body, err := encode(&opts, schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"})
	if err != nil {
		return err
	}
	_, err = r.do(ctx, http.MethodDelete, r.path(res, key.Namespace, key.Name, ""), body)
	return err
}

func (r *Remote) bind(ctx context.Context, b Binding) (api.Object, error) {
	if len(b.Claims) > 0 {
		return nil, fmt.Errorf("binding pod %s: claims change in one transaction with their pod within a server alone", b.Pod)
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: b.Pod.Namespace, Name: b.Pod.Name, UID: types.UID(b.UID)}, Target: corev1.ObjectReference{Kind: "Node", Name: b.Node}}
	if _, err := r.post(ctx, r.path(api.Pods, b.Pod.Namespace, b.Pod.Name, "binding"), corev1.SchemeGroupVersion.WithKind("Binding"), binding); err != nil {
		return nil, err
	}
	pod, err := r.get(ctx, api.Pods, b.Pod)
	return r.written(api.Pods, pod, err)
}
