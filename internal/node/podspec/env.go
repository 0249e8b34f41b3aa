package podspec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Lookup reads the objects that a pod refers to.
type Lookup interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Services returns the Services of a namespace.
	Services(ctx context.Context, namespace string) ([]*corev1.Service, error)
}

// environment is an ordered list of variables with the last value of each.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, ok := e.values[name]; !ok {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) get(name string) (string, bool) {
	v, ok := e.values[name]
	return v, ok
}

// Env returns a container's environment: Service variables, then envFrom, then env, later ones winning. files may be nil where pods have no
// files (hollow nodes); variables that come from one are not set then.
func Env(ctx context.Context, pod *corev1.Pod, c *corev1.Container, l Lookup, files Files, f Facts) ([]*cri.KeyValue, error) {
	e := &environment{values: map[string]string{}}
	services, err := serviceEnv(ctx, pod, l)
	if err != nil {
		return nil, err
	}
	if err := envFrom(ctx, pod, c, l, e); err != nil {
		return nil, err
	}
	for i := range c.Env {
		v := &c.Env[i]
		value := v.Value
		if value != "" {
			// References see what was set before, Service variables last.
			value = Expand(value, func(n string) (string, bool) {
				if s, ok := e.get(n); ok {
					return s, true
				}
				s, ok := services[n]
				return s, ok
			})
		} else if v.ValueFrom != nil {
			var set bool
			if value, set, err = valueFrom(ctx, pod, c, v.ValueFrom, l, files, f); err != nil {
				return nil, err
			}
			if !set {
				continue
			}
		}
		e.set(v.Name, value)
	}
	out := make([]*cri.KeyValue, 0, len(e.names)+len(services))
	for _, n := range e.names {
		out = append(out, &cri.KeyValue{Key: n, Value: []byte(e.values[n])})
	}
	rest := make([]string, 0, len(services))
	for n := range services {
		if _, ok := e.values[n]; !ok {
			rest = append(rest, n)
		}
	}
	sort.Strings(rest)
	for _, n := range rest {
		out = append(out, &cri.KeyValue{Key: n, Value: []byte(services[n])})
	}
	return out, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func envFrom(ctx context.Context, pod *corev1.Pod, c *corev1.Container, l Lookup, e *environment) error {
	for i := range c.EnvFrom {
		from := &c.EnvFrom[i]
		data := map[string]string{}
		switch {
		case from.ConfigMapRef != nil:
			cm, err := l.ConfigMap(ctx, pod.Namespace, from.ConfigMapRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && isTrue(from.ConfigMapRef.Optional) {
					continue
				}
				return err
			}
			data = cm.Data
		case from.SecretRef != nil:
			s, err := l.Secret(ctx, pod.Namespace, from.SecretRef.Name)
			if err != nil {
				if apierrors.IsNotFound(err) && isTrue(from.SecretRef.Optional) {
					continue
				}
				return err
			}
			for k, v := range s.Data {
				data[k] = string(v)
			}
		}
		keys := make([]string, 0, len(data))
		for k := range data {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		for _, k := range keys {
			e.set(from.Prefix+k, data[k])
		}
	}
	return nil
}

// valueFrom resolves one valueFrom. set is false where an optional source is missing.
func valueFrom(ctx context.Context, pod *corev1.Pod, c *corev1.Container, src *corev1.EnvVarSource, l Lookup, files Files, f Facts) (value string, set bool, err error) {
	switch {
	case src.FieldRef != nil:
		value, err = Field(pod, src.FieldRef.FieldPath, f)
		return value, true, err
	case src.ResourceFieldRef != nil:
		value, err = Resource(pod, c.Name, src.ResourceFieldRef, f)
		return value, true, err
	case src.ConfigMapKeyRef != nil:
		ref := src.ConfigMapKeyRef
		cm, err := l.ConfigMap(ctx, pod.Namespace, ref.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(ref.Optional) {
				return "", false, nil
			}
			return "", false, err
		}
		if v, ok := cm.Data[ref.Key]; ok {
			return v, true, nil
		}
		if isTrue(ref.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
	case src.SecretKeyRef != nil:
		ref := src.SecretKeyRef
		s, err := l.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(ref.Optional) {
				return "", false, nil
			}
			return "", false, err
		}
		if v, ok := s.Data[ref.Key]; ok {
			return string(v), true, nil
		}
		if isTrue(ref.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
	case src.FileKeyRef != nil && files != nil:
		return fromFile(src.FileKeyRef, files)
	case src.FileKeyRef != nil:
		return "", false, nil
	}
	return "", false, errors.New("env.valueFrom names no source that is known")
}

// serviceEnv returns the variables that point at Services: those of the pod's namespace when enableServiceLinks, and the API
// server's always (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
func serviceEnv(ctx context.Context, pod *corev1.Pod, l Lookup) (map[string]string, error) {
	out := map[string]string{}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	master, err := l.Services(ctx, corev1.NamespaceDefault)
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	for _, s := range master {
		if s.Name == "kubernetes" {
			addService(out, s)
		}
	}
	if !links {
		return out, nil
	}
	own := master
	if pod.Namespace != corev1.NamespaceDefault {
		if own, err = l.Services(ctx, pod.Namespace); err != nil {
			return nil, fmt.Errorf("listing services: %w", err)
		}
	}
	for _, s := range own {
		addService(out, s)
	}
	return out, nil
}

func addService(out map[string]string, s *corev1.Service) {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	prefix := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	out[prefix+"_SERVICE_HOST"] = ip
	out[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		port, proto := strconv.Itoa(int(p.Port)), string(p.Protocol)
		if proto == "" {
			proto = "TCP"
		}
		if p.Name != "" {
			out[prefix+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))] = port
		}
		url := strings.ToLower(proto) + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			out[prefix+"_PORT"] = url
		}
		one := prefix + "_PORT_" + port + "_" + strings.ToUpper(proto)
		out[one] = url
		out[one+"_PROTO"] = strings.ToLower(proto)
		out[one+"_PORT"] = port
		out[one+"_ADDR"] = ip
	}
}
