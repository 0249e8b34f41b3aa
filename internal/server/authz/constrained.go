package authz

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Modes of constrained impersonation (KEP-5284): each takes the verb impersonate:MODE on the user, and impersonate-on:MODE:VERB on what
// the request is about.
const (
	associatedNode  = "associated-node" // the node of the pod to which a service account's token is bound
	arbitraryNode   = "arbitrary-node"
	accountMode     = "serviceaccount"
	userInfo        = "user-info" // users that are neither nodes nor service accounts
	associatedExtra = "authentication.kubernetes.io/associated-node-keys"
	// many values at once are first asked about with a single "*".
	many = 4
)

// constrained returns the user as whom the request may act by one of the modes, or the first refusal. Where no mode is meant for such a
// user both are nil.
func constrained(ctx context.Context, z Authorizer, request *Attributes, as *user.DefaultInfo) (*user.DefaultInfo, error) {
	var first error
	for _, mode := range modesFor(as, request.User) {
		err := actBy(ctx, z, mode, request, as)
		if err == nil {
			got := *as
			if mode == associatedNode || mode == arbitraryNode {
				got.Groups = []string{user.NodesGroup}
			}
			return &got, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// modesFor returns the modes in which a user may be acted as, in the order in which they are tried. Groups, UID and extra values of nodes
// and service accounts are not the asker's to choose.
func modesFor(as *user.DefaultInfo, who user.Info) []string {
	node, isNode := nodeUser(as.Name)
	_, _, err := serviceaccount.SplitUsername(as.Name)
	isAccount := err == nil
	bare := as.UID == "" && len(as.Groups) == 0 && len(as.Extra) == 0
	switch {
	case !isNode && !isAccount:
		return []string{userInfo}
	case !bare:
		return nil
	case isAccount:
		return []string{accountMode}
	case runsOn(who, node):
		return []string{associatedNode, arbitraryNode}
	}
	return []string{arbitraryNode}
}

// nodeUser returns the name of the node that a user name is of.
func nodeUser(name string) (string, bool) {
	node, ok := strings.CutPrefix(name, "system:node:")
	return node, ok && len(validation.NameIsDNSSubdomain(node, false)) == 0
}

// runsOn reports whether who is a service account whose token is bound to a pod on the node.
func runsOn(who user.Info, node string) bool {
	if _, _, err := serviceaccount.SplitUsername(who.GetName()); err != nil {
		return false
	}
	return slices.Equal(who.GetExtra()[serviceaccount.NodeNameKey], []string{node})
}

// actBy returns nil if the request may be made in the mode as the user, or why not.
func actBy(ctx context.Context, z Authorizer, mode string, request *Attributes, as *user.DefaultInfo) error {
	who := request.User
	if mode == associatedNode {
		who = &user.DefaultInfo{Name: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(),
			Extra: map[string][]string{associatedExtra: slices.Sorted(maps.Keys(who.GetExtra()))}}
	}
	on := *request
	on.User, on.Verb = who, "impersonate-on:"+mode+":"+request.Verb
	if err := Check(ctx, z, &on); err != nil {
		return err
	}
	ask := func(resource, sub, namespace, name string) *Attributes {
		return &Attributes{User: who, Verb: "impersonate:" + mode, IsResource: true, Group: "authentication.k8s.io", Version: "v1",
			Resource: resource, Subresource: sub, Namespace: namespace, Name: name}
	}
	if err := Check(ctx, z, nameIn(mode, as, ask)); err != nil {
		return err
	}
	if as.UID != "" {
		if err := Check(ctx, z, ask("uids", "", "", as.UID)); err != nil {
			return err
		}
	}
	if err := checkGroups(ctx, z, as.Groups, ask); err != nil {
		return err
	}
	return checkExtra(ctx, z, as.Extra, ask)
}

type asking func(resource, sub, namespace, name string) *Attributes

func nameIn(mode string, as *user.DefaultInfo, ask asking) *Attributes {
	switch mode {
	case associatedNode:
		return ask("nodes", "", "", "*") // its own, whichever that is
	case arbitraryNode:
		node, _ := nodeUser(as.Name)
		return ask("nodes", "", "", node)
	case accountMode:
		namespace, name, _ := serviceaccount.SplitUsername(as.Name) // modesFor has seen that it is one
		return ask("serviceaccounts", "", namespace, name)
	}
	return ask("users", "", "", as.Name)
}

func checkGroups(ctx context.Context, z Authorizer, groups []string, ask asking) error {
	switch {
	case slices.Contains(groups, ""):
		return Forbidden(ask("groups", "", "", ""), "impersonating the empty string group is not allowed")
	case slices.Contains(groups, user.SystemPrivilegedGroup):
		return Forbidden(ask("groups", "", "", user.SystemPrivilegedGroup), "impersonating the system:masters group is not allowed")
	case len(groups) >= many && Check(ctx, z, ask("groups", "", "", "*")) == nil:
		return nil
	}
	for _, g := range groups {
		if err := Check(ctx, z, ask("groups", "", "", g)); err != nil {
			return err
		}
	}
	return nil
}

func checkExtra(ctx context.Context, z Authorizer, extra map[string][]string, ask asking) error {
	if why := wrongExtra(extra); why != "" {
		return Forbidden(ask("userextras", "", "", ""), why)
	}
	values := 0
	for _, v := range extra {
		values += len(v)
	}
	if values >= many && Check(ctx, z, ask("userextras", "*", "", "*")) == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		for _, v := range extra[key] {
			if err := Check(ctx, z, ask("userextras", key, "", v)); err != nil {
				return err
			}
		}
	}
	return nil
}

// wrongExtra says what keeps extra values from being anybody's, or "".
func wrongExtra(extra map[string][]string) string {
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		values := extra[key]
		switch {
		case key == "":
			return "impersonating the empty string key in extra is not allowed"
		case len(values) == 0:
			return "impersonating empty values in extra is not allowed"
		case slices.Contains(values, ""):
			return "impersonating the empty string value in extra is not allowed"
		case key != strings.ToLower(key):
			return fmt.Sprintf("impersonating a non-lowercase key in extra is not allowed: %q", key)
		}
		if err := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), key).ToAggregate(); err != nil {
			return fmt.Sprintf("impersonating an invalid key in extra is not allowed: %v", err)
		}
	}
	return ""
}
