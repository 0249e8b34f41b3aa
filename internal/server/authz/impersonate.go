package authz

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Impersonate returns the user as whom a request wants to act, by its Impersonate-* headers (kubectl --as), or the request's own user
// if it has none. It takes the headers off the request. The error is a 403 where the user may not act as that user, group, UID
// or extra value, a 400 where the headers make no sense. Rights for this request alone (KEP-5284) are looked at before the verb
// impersonate, which is good for any.
func Impersonate(ctx context.Context, z Authorizer, h http.Header, request *Attributes) (user.Info, error) {
	as, wanted, err := impersonated(h)
	if err != nil || !wanted {
		return request.User, err
	}
	got, refused := constrained(ctx, z, request, as)
	if got == nil {
		if err := actAlways(ctx, z, request.User, as); err != nil {
			if refused != nil {
				return nil, refused
			}
			return nil, err
		}
		got = as
	}
	for name := range h {
		if isImpersonation(name) {
			h.Del(name)
		}
	}
	return completed(got), nil
}

// actAlways returns nil if who may act as a user in all requests.
func actAlways(ctx context.Context, z Authorizer, who user.Info, as *user.DefaultInfo) error {
	for _, a := range impersonations(as) {
		a.User, a.Verb, a.IsResource = who, "impersonate", true
		if err := Check(ctx, z, a); err != nil {
			return err
		}
	}
	return nil
}

func isImpersonation(header string) bool {
	header = http.CanonicalHeaderKey(header)
	return header == authenticationv1.ImpersonateUserHeader || header == authenticationv1.ImpersonateGroupHeader ||
		header == authenticationv1.ImpersonateUIDHeader || strings.HasPrefix(header, authenticationv1.ImpersonateUserExtraHeaderPrefix)
}

// impersonated reads the headers. wanted is false where there are none.
func impersonated(h http.Header) (as *user.DefaultInfo, wanted bool, err error) {
	as = &user.DefaultInfo{
		Name:   h.Get(authenticationv1.ImpersonateUserHeader),
		UID:    h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: slices.Clone(h.Values(authenticationv1.ImpersonateGroupHeader)),
		Extra:  map[string][]string{},
	}
	for name, values := range h {
		key, ok := strings.CutPrefix(http.CanonicalHeaderKey(name), authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		key = strings.ToLower(key)
		// Keys such as example.com/scope are percent-encoded, because header names cannot hold a slash.
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		as.Extra[key] = append(as.Extra[key], values...)
	}
	if as.Name == "" {
		if as.UID != "" || len(as.Groups) > 0 || len(as.Extra) > 0 {
			return nil, false, apierrors.NewBadRequest("groups, UIDs and extra values cannot be impersonated without a user: set the header Impersonate-User as well")
		}
		return nil, false, nil
	}
	return as, true, nil
}

// impersonations are the permissions that acting as a user takes.
func impersonations(as *user.DefaultInfo) []*Attributes {
	var out []*Attributes
	if namespace, name, err := serviceaccount.SplitUsername(as.Name); err == nil {
		out = append(out, &Attributes{Version: "v1", Resource: "serviceaccounts", Namespace: namespace, Name: name})
	} else {
		out = append(out, &Attributes{Version: "v1", Resource: "users", Name: as.Name})
	}
	for _, g := range as.Groups {
		out = append(out, &Attributes{Version: "v1", Resource: "groups", Name: g})
	}
	if as.UID != "" {
		out = append(out, &Attributes{Group: "authentication.k8s.io", Version: "v1", Resource: "uids", Name: as.UID})
	}
	for _, key := range slices.Sorted(maps.Keys(as.Extra)) {
		for _, v := range as.Extra[key] {
			out = append(out, &Attributes{Group: "authentication.k8s.io", Version: "v1", Resource: "userextras", Subresource: key, Name: v})
		}
	}
	return out
}

// completed adds the groups that authentication would have added.
func completed(as *user.DefaultInfo) *user.DefaultInfo {
	if namespace, _, err := serviceaccount.SplitUsername(as.Name); err == nil && len(as.Groups) == 0 {
		as.Groups = serviceaccount.MakeGroupNames(namespace)
	}
	all := user.AllAuthenticated
	if as.Name == user.Anonymous || slices.Contains(as.Groups, user.AllUnauthenticated) {
		all = user.AllUnauthenticated
	}
	if !slices.Contains(as.Groups, all) {
		as.Groups = append(as.Groups, all)
	}
	return as
}
