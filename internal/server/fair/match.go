package fair

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/request"
)

// matches reports whether a FlowSchema is about a request.
func (s *schema) matches(of *request.Info) bool {
	for i := range s.rules {
		if ruleMatches(&s.rules[i], of) {
			return true
		}
	}
	return false
}

// flowOf is what parts the flows of a schema.
func (s *schema) flowOf(of *request.Info) string {
	switch s.distinguisher {
	case flowcontrolv1.FlowDistinguisherMethodByUserType:
		return of.User.GetName()
	case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		return of.Namespace
	}
	return ""
}

func ruleMatches(r *flowcontrolv1.PolicyRulesWithSubjects, of *request.Info) bool {
	if !slices.ContainsFunc(r.Subjects, func(s flowcontrolv1.Subject) bool { return subjectMatches(&s, of.User) }) {
		return false
	}
	if of.IsResource {
		return slices.ContainsFunc(r.ResourceRules, func(r flowcontrolv1.ResourcePolicyRule) bool { return resourceMatches(&r, of) })
	}
	return slices.ContainsFunc(r.NonResourceRules, func(r flowcontrolv1.NonResourcePolicyRule) bool {
		return named(r.Verbs, of.Verb) && pathMatches(r.NonResourceURLs, of.Path)
	})
}

// serviceAccount begins the names of service accounts as users: system:serviceaccount:NAMESPACE:NAME.
const serviceAccount = "system:serviceaccount:"

func subjectMatches(s *flowcontrolv1.Subject, who user.Info) bool {
	switch {
	case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
		return s.User.Name == flowcontrolv1.NameAll || s.User.Name == who.GetName()
	case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
		return s.Group.Name == flowcontrolv1.NameAll || slices.Contains(who.GetGroups(), s.Group.Name)
	case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
		rest, ok := strings.CutPrefix(who.GetName(), serviceAccount)
		if !ok {
			return false
		}
		namespace, name, ok := strings.Cut(rest, ":")
		return ok && namespace == s.ServiceAccount.Namespace && (s.ServiceAccount.Name == flowcontrolv1.NameAll || name == s.ServiceAccount.Name)
	}
	return false
}

func resourceMatches(r *flowcontrolv1.ResourcePolicyRule, of *request.Info) bool {
	if !named(r.Verbs, of.Verb) || !named(r.APIGroups, of.Group) || !resourceNamed(r.Resources, of.Resource, of.Subresource) {
		return false
	}
	if of.Namespace == "" {
		return r.ClusterScope
	}
	return named(r.Namespaces, of.Namespace)
}

// named reports whether a list names something, or all there is.
func named(list []string, name string) bool {
	return len(list) == 1 && list[0] == flowcontrolv1.VerbAll || slices.Contains(list, name)
}

// resourceNamed is named for RESOURCE or RESOURCE/SUBRESOURCE.
func resourceNamed(list []string, resource, sub string) bool {
	if sub == "" || len(list) == 1 && list[0] == flowcontrolv1.ResourceAll {
		return named(list, resource)
	}
	return slices.ContainsFunc(list, func(s string) bool {
		return len(s) == len(resource)+1+len(sub) && strings.HasPrefix(s, resource) && s[len(resource)] == '/' && strings.HasSuffix(s, sub)
	})
}

// pathMatches reports whether path is one of urls, or below one that is written with or without an asterisk.
func pathMatches(urls []string, path string) bool {
	return slices.ContainsFunc(urls, func(url string) bool {
		if url == flowcontrolv1.NonResourceAll || url == path {
			return true
		}
		prefix := strings.TrimSuffix(url, "*")
		return strings.HasPrefix(path, prefix) && (strings.HasSuffix(prefix, "/") || len(path) > len(prefix) && path[len(prefix)] == '/')
	})
}
