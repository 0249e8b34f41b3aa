package authn

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
)

// claims are what a service account token says. The names are Kubernetes' (KEP-1205, KEP-4193): other programs read them.
type claims struct {
	jwt.Claims
	// Audience hides that of jwt.Claims, which writes a single audience as a string; Kubernetes' tokens hold a list always.
	Audience   []string `json:"aud,omitempty"`
	Kubernetes private  `json:"kubernetes.io"`

	who *user.DefaultInfo // made once
}

type private struct {
	Namespace string           `json:"namespace,omitempty"`
	Account   ref              `json:"serviceaccount"`
	Pod       *ref             `json:"pod,omitempty"`
	Secret    *ref             `json:"secret,omitempty"`
	Node      *ref             `json:"node,omitempty"`
	WarnAfter *jwt.NumericDate `json:"warnafter,omitempty"`
}

// ref names an object; the UID tells it from a later one of the same name.
type ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// user returns the user whom the token makes, with what it is bound to as extra values.
func (c *claims) user() *user.DefaultInfo {
	p := &c.Kubernetes
	who := userOfAccount(p.Namespace, p.Account.Name, p.Account.UID)
	who.Extra = map[string][]string{}
	if c.ID != "" {
		who.Extra[credentialID] = []string{"JTI=" + c.ID}
	}
	if p.Pod != nil {
		who.Extra[serviceaccount.PodNameKey] = []string{p.Pod.Name}
		who.Extra[serviceaccount.PodUIDKey] = []string{p.Pod.UID}
	}
	if p.Node != nil {
		who.Extra[serviceaccount.NodeNameKey] = []string{p.Node.Name}
		if p.Node.UID != "" {
			who.Extra[serviceaccount.NodeUIDKey] = []string{p.Node.UID}
		}
	}
	return who
}

// check says why claims that were true once are no longer: their time has passed, or what they are bound to is gone.
func (t *Tokens) check(c *claims) error {
	now := t.cfg.Now()
	if c.Expiry == nil || c.Subject != serviceaccount.MakeUsername(c.Kubernetes.Namespace, c.Kubernetes.Account.Name) {
		return errors.New("the service account token lacks claims that it must have")
	}
	switch err := c.Validate(jwt.Expected{Time: now}); {
	case errors.Is(err, jwt.ErrExpired):
		return errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return errors.New("service account token is not valid yet")
	case err != nil:
		return err
	}
	p := &c.Kubernetes
	if err := t.alive(api.ServiceAccounts, p.Namespace, &p.Account, now); err != nil {
		return err
	}
	if err := t.alive(api.Secrets, p.Namespace, p.Secret, now); err != nil {
		return err
	}
	if p.Pod != nil {
		// The node beside a pod is for information (KEP-4193): the pod's own existence is what counts.
		return t.alive(api.Pods, p.Namespace, p.Pod, now)
	}
	return t.alive(api.Nodes, "", p.Node, now)
}

// alive says why the object r is not the one that the token was bound to. An object that is being deleted counts for a minute
// more, so that a terminating pod can say goodbye; nil means bound to nothing.
func (t *Tokens) alive(res *api.Resource, namespace string, r *ref, now time.Time) error {
	if r == nil {
		return nil
	}
	obj, ok := t.cfg.Reader.Get(res, api.Key{Namespace: namespace, Name: r.Name})
	if !ok {
		return fmt.Errorf("service account token has been invalidated: %s %q is gone", res.Singular, r.Name)
	}
	if string(obj.GetUID()) != r.UID {
		return fmt.Errorf("service account token has been invalidated: %s %q has UID %s, the token says %s", res.Singular, r.Name, obj.GetUID(), r.UID)
	}
	if gone := obj.GetDeletionTimestamp(); gone != nil && gone.Time.Before(now.Add(-jwt.DefaultLeeway)) {
		return fmt.Errorf("service account token has been invalidated: %s %q was deleted", res.Singular, r.Name)
	}
	return nil
}
