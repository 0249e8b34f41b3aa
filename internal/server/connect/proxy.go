package connect

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// proxy passes a request on to a pod, or to an endpoint of a service.
func (n *Connector) proxy(c *call.Call) error {
	scheme, name, portName, err := splitProxyName(c.Target.Name)
	if err != nil {
		return err
	}
	if err := n.admitProxy(c); err != nil {
		return err
	}
	c.Target.Name = name
	if c.Target.Res == api.Nodes {
		return n.nodeProxy(c, portName)
	}
	var host string
	switch c.Target.Res {
	case api.Pods:
		host, err = n.podAddress(c, portName)
	case api.Services:
		host, err = n.endpointAddress(c, portName)
	default:
		return call.ErrNoPath()
	}
	if err != nil {
		return err
	}
	if at := c.R.URL; c.Target.Rest == "" && !strings.HasSuffix(at.Path, "/") && (c.R.Method == http.MethodGet || c.R.Method == http.MethodHead) {
		// Relative links of the page would otherwise lead to the pod's object.
		c.W.Header().Set("Location", (&url.URL{Path: at.Path + "/", RawQuery: at.RawQuery}).String())
		c.W.WriteHeader(http.StatusMovedPermanently)
		return nil
	}
	n.pass(c, scheme, host)
	return nil
}

// admitProxy asks admission about a request that is passed on. The object's name is still what the path says, with scheme and port.
func (n *Connector) admitProxy(c *call.Call) error {
	_, path := throughPath(c)
	if path == "/" && !strings.HasSuffix(c.R.URL.Path, "/") {
		path = ""
	}
	var opts runtime.Object
	admitted := &path
	switch c.Target.Res {
	case api.Pods:
		o := &corev1.PodProxyOptions{Path: path}
		opts, admitted = o, &o.Path
	case api.Services:
		o := &corev1.ServiceProxyOptions{Path: path}
		opts, admitted = o, &o.Path
	case api.Nodes:
		o := &corev1.NodeProxyOptions{Path: path}
		opts, admitted = o, &o.Path
	}
	if err := n.admit(c, opts); err != nil {
		return err
	}
	if *admitted != path {
		c.Target.Rest = strings.TrimPrefix(*admitted, "/")
	}
	return nil
}

// pass sends the request to host and its answer to the client.
func (n *Connector) pass(c *call.Call, scheme, host string) {
	prefix, path := throughPath(c)
	p := &httputil.ReverseProxy{
		// Pods rarely have certificates that anyone could check; Kubernetes does not either.
		Transport: &http.Transport{DialContext: n.cfg.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = &url.URL{Scheme: scheme, Host: host, Path: path, RawQuery: r.In.URL.RawQuery}
			r.Out.Host = ""
			for h := range r.Out.Header {
				if strings.HasPrefix(h, "Impersonate-") {
					r.Out.Header.Del(h)
				}
			}
			r.SetXForwarded()
			r.Out.Header.Set("X-Forwarded-Prefix", prefix)
		},
		ModifyResponse: func(resp *http.Response) error { return moveLinks(resp, prefix) },
		FlushInterval:  -1,
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			c.Fail(apierrors.NewServiceUnavailable(fmt.Sprintf("error trying to reach %s: %v", host, err)))
		},
	}
	p.ServeHTTP(c.W, c.R)
}

// throughPath parts the path of a request into what leads to the proxy and the path that is asked for behind it, with the slash
// that it may end with.
func throughPath(c *call.Call) (prefix, path string) {
	whole, path := c.R.URL.Path, "/"+c.Target.Rest
	if strings.HasSuffix(whole, "/") && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	return strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(whole, "/"), strings.TrimSuffix(c.Target.Rest, "/")), "/"), path
}

// splitProxyName reads [SCHEME:]NAME[:PORT], as the API writes it.
func splitProxyName(s string) (scheme, name, port string, err error) {
	parts := strings.Split(s, ":")
	scheme = "http"
	switch {
	case len(parts) == 1:
		return scheme, s, "", nil
	case len(parts) == 2:
		return scheme, parts[0], parts[1], nil
	case len(parts) == 3 && (parts[0] == "" || parts[0] == "http" || parts[0] == "https"):
		if parts[0] != "" {
			scheme = parts[0]
		}
		return scheme, parts[1], parts[2], nil
	}
	return "", "", "", apierrors.NewBadRequest(fmt.Sprintf("invalid proxy request %q: use NAME, NAME:PORT or http(s):NAME:PORT", s))
}

// podAddress is where a pod's port is.
func (n *Connector) podAddress(c *call.Call, portName string) (string, error) {
	pod, err := n.pod(c)
	if err != nil {
		return "", err
	}
	number := ""
	if n, ok := port(portName); ok {
		number = strconv.Itoa(n)
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if number == "" && (portName == "" || p.Name == portName) {
				number = strconv.Itoa(int(p.ContainerPort))
			}
		}
	}
	switch {
	case number == "" && portName == "":
		number = "80"
	case number == "":
		return "", apierrors.NewBadRequest(fmt.Sprintf("pod %s has no port named %q", pod.Name, portName))
	}
	return address(pod.Status.PodIP, number)
}

// endpointAddress is where one ready endpoint of a service is.
func (n *Connector) endpointAddress(c *call.Call, portName string) (string, error) {
	ctx := c.R.Context()
	rev, err := n.cfg.Registry.Get(ctx, api.Services, c.Target.Key())
	if err != nil {
		return "", err
	}
	svc := rev.Object.(*corev1.Service)
	wanted, err := servicePort(svc, portName)
	if err != nil {
		return "", err
	}
	list, err := n.cfg.Registry.List(ctx, api.EndpointSlices, registry.ListOptions{Selection: registry.Selection{
		Namespace: svc.Namespace, Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: svc.Name})}})
	if err != nil {
		return "", err
	}
	var found [][2]string
	for _, rev := range list.Items {
		slice := rev.Object.(*discoveryv1.EndpointSlice)
		for _, p := range slice.Ports {
			if p.Port == nil || (p.Name != nil && *p.Name != wanted) || (p.Name == nil && wanted != "") {
				continue
			}
			for _, e := range slice.Endpoints {
				if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
					found = append(found, [2]string{e.Addresses[0], strconv.Itoa(int(*p.Port))})
				}
			}
		}
	}
	if len(found) == 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", c.Target.Name))
	}
	one := found[rand.N(len(found))]
	return address(one[0], one[1])
}

// servicePort returns the name of the port that a request means.
func servicePort(svc *corev1.Service, want string) (string, error) {
	n, isNumber := port(want)
	for _, p := range svc.Spec.Ports {
		if (want == "" && len(svc.Spec.Ports) == 1) || (want != "" && p.Name == want) || (isNumber && int(p.Port) == n) {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("service %q has no port %q", svc.Name, want))
}

// address joins an IP and a port. Addresses of the machine itself and of its links are refused: whoever can write a pod's
// status must not reach what listens there.
func address(ip, port string) (string, error) {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return "", apierrors.NewServiceUnavailable("the pod has no address yet")
	}
	if a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsUnspecified() || a.IsMulticast() {
		return "", apierrors.NewBadRequest("address not allowed: " + ip)
	}
	return net.JoinHostPort(ip, port), nil
}
