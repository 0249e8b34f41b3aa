package kubelet

import (
	"net/http"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// right returns what a request does, and the subresources of nodes of which one must be allowed, the narrower first (KEP-2862). It is pure.
func right(r *http.Request) (verb string, subresources []string) {
	verb = map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
	if verb == "" {
		verb = strings.ToLower(r.Method)
	}
	root, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch root {
	case "stats", "metrics", "checkpoint", "statusz", "flagz":
		return verb, []string{root}
	case "logs":
		return verb, []string{"log"}
	case "pods", "runningpods":
		return verb, []string{"pods", "proxy"}
	case "healthz", "configz":
		return verb, []string{root, "proxy"}
	}
	return verb, []string{"proxy"}
}

// question asks whether a user may do something with a node.
func question(who user.Info, node, verb, sub string) *authorizationv1.SubjectAccessReview {
	extra := make(map[string]authorizationv1.ExtraValue, len(who.GetExtra()))
	for k, v := range who.GetExtra() {
		extra[k] = v
	}
	return &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(), Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: node},
	}}
}
