package apiservice

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api/registration"
)

// managed is the label that says how an APIService is kept: once after each start, or always. Without it nobody touches one.
const (
	managed = "kube-aggregator.kubernetes.io/automanaged"
	onStart = "onstart"
	always  = "true"
)

// nameOf returns the name of the APIService of a group-version.
func nameOf(gv schema.GroupVersion) string { return gv.Version + "." + gv.Group }

// local returns the APIService of a group-version that this server answers. label says how it is kept; empty: it is made where there is none, and
// then its owner's.
func local(gv schema.GroupVersion, p registration.Priority, label string) *apiregistrationv1.APIService {
	s := &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: nameOf(gv)},
		Spec:       apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: p.Group, VersionPriority: p.Version},
	}
	if label != "" {
		s.Labels = map[string]string{managed: label}
	}
	return s
}

// builtin returns the APIServices of the built-in group-versions, by name.
func builtin(served []schema.GroupVersion) map[string]*apiregistrationv1.APIService {
	out := map[string]*apiregistrationv1.APIService{}
	for _, gv := range served {
		p, ok := registration.PriorityOf(gv)
		if !ok {
			continue
		}
		label := onStart
		if gv.Group == "metrics.k8s.io" {
			label = ""
		}
		out[nameOf(gv)] = local(gv, p, label)
	}
	return out
}

// ofDefinitions returns the APIService named name if a definition serves its group-version, or nil.
func ofDefinitions(name string, definitions []*apiextensionsv1.CustomResourceDefinition) *apiregistrationv1.APIService {
	for _, def := range definitions {
		for _, v := range def.Spec.Versions {
			if gv := (schema.GroupVersion{Group: def.Spec.Group, Version: v.Name}); v.Served && nameOf(gv) == name {
				return local(gv, registration.Custom, always)
			}
		}
	}
	return nil
}

type action int

const (
	leave action = iota
	create
	update
	remove
)

// plan decides what becomes of an APIService. desired is what should be there, present what is; nil: nothing. done says that this server has
// kept it since it began, atStart that it was there then.
//
//	present \ desired                    nothing       once after a start   always
//	nothing                              -             create, once         create
//	not managed                          -             -                    -
//	once, and not there at the start     -             -                    -
//	once, and there at the start         remove, once  update, once         update, once
//	always                               remove        update, once         update
func plan(desired, present *apiregistrationv1.APIService, done, atStart bool) action {
	once := desired != nil && desired.Labels[managed] != always
	kept := ""
	if present != nil {
		kept = present.Labels[managed]
	}
	switch {
	case present == nil && desired == nil, once && done:
		return leave
	case present == nil:
		return create
	case kept != onStart && kept != always:
		return leave
	case kept == onStart && (!atStart || done):
		return leave
	case desired == nil:
		return remove
	case sameSpec(&desired.Spec, &present.Spec):
		return leave
	}
	return update
}

func sameSpec(a, b *apiregistrationv1.APIServiceSpec) bool {
	return a.Service == nil && b.Service == nil && len(a.CABundle)+len(b.CABundle) == 0 && a.InsecureSkipTLSVerify == b.InsecureSkipTLSVerify &&
		a.Group == b.Group && a.Version == b.Version && a.GroupPriorityMinimum == b.GroupPriorityMinimum && a.VersionPriority == b.VersionPriority
}

// available returns the condition of an APIService as far as objects tell, with reasons and messages of kube-aggregator. ask says that the
// server has to be asked, too.
func available(s *apiregistrationv1.APIService, svc *corev1.Service, endpoints []*discoveryv1.EndpointSlice) (c apiregistrationv1.APIServiceCondition, ask bool) {
	ref := s.Spec.Service
	if ref == nil {
		return registration.Local(metav1.Time{}), false
	}
	not := func(reason, message string, args ...any) (apiregistrationv1.APIServiceCondition, bool) {
		return condition(apiregistrationv1.ConditionFalse, reason, fmt.Sprintf(message, args...)), false
	}
	if svc == nil {
		return not("ServiceNotFound", "service/%s in %q is not present", ref.Name, ref.Namespace)
	}
	if svc.Spec.Type == corev1.ServiceTypeClusterIP {
		want := int32(443)
		if ref.Port != nil {
			want = *ref.Port
		}
		at := slices.IndexFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == want })
		if at < 0 {
			return not("ServicePortError", "service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, want)
		}
		if len(endpoints) == 0 {
			return not("EndpointsNotFound", "cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
		}
		if port := svc.Spec.Ports[at].Name; !slices.ContainsFunc(endpoints, func(e *discoveryv1.EndpointSlice) bool { return ready(e, port) }) {
			return not("MissingEndpoints", "endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, port)
		}
	}
	return condition(apiregistrationv1.ConditionTrue, "Passed", "all checks passed"), true
}

func condition(status apiregistrationv1.ConditionStatus, reason, message string) apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: status, Reason: reason, Message: message}
}

// ready reports whether a slice has a ready endpoint with a port of a name.
func ready(e *discoveryv1.EndpointSlice, port string) bool {
	return slices.ContainsFunc(e.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) &&
		slices.ContainsFunc(e.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == port && p.Port != nil })
}

// withCondition returns s with a condition, or nil where it says that already. Its time is now where its status is another one.
func withCondition(s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition, now metav1.Time) *apiregistrationv1.APIService {
	c.LastTransitionTime = now
	out := s.DeepCopy()
	for i, have := range out.Status.Conditions {
		if have.Type != c.Type {
			continue
		}
		if have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		if have == c {
			return nil
		}
		out.Status.Conditions[i] = c
		return out
	}
	out.Status.Conditions = append(out.Status.Conditions, c)
	return out
}

// How soon a server is asked again: one that is well, and one that is not, the longer it has been so the later.
const (
	askAgain     = 30 * time.Second
	askAgainSoon = time.Second
)

// again returns when to look at an APIService again.
func again(s *apiregistrationv1.APIService, c apiregistrationv1.APIServiceCondition, now time.Time) time.Duration {
	if c.Status == apiregistrationv1.ConditionTrue {
		return askAgain
	}
	since := time.Duration(0)
	if have := registration.Available(s); have != nil && have.Status == c.Status {
		since = now.Sub(have.LastTransitionTime.Time)
	}
	return min(askAgain, max(askAgainSoon, since/2))
}
