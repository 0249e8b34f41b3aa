package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// sources reads the objects that pods are made from, keeps their tokens, and wakes pods when a ConfigMap or Secret that one of their
// volumes shows has changed. It watches each object by its name, which is all that the Node authorizer lets a node do, and only while a
// pod of this node needs it.
type sources struct {
	a *Agent

	mu      sync.Mutex
	tokens  map[tokenKey]token
	watches map[watchKey]*sourceWatch
}

type tokenKey struct {
	uid               types.UID
	account, audience string
	seconds           int64
}

type token struct {
	value string
	renew time.Time
}

type watchKey struct {
	kind, namespace, name string
}

type sourceWatch struct {
	users  map[*worker]bool
	cancel context.CancelFunc
}

func newSources(a *Agent) *sources {
	return &sources{a: a, tokens: map[tokenKey]token{}, watches: map[watchKey]*sourceWatch{}}
}

// ConfigMap implements podspec.Lookup.
func (s *sources) ConfigMap(ctx context.Context, ns, name string) (*corev1.ConfigMap, error) {
	cm, err := client.Get[*corev1.ConfigMap](ctx, s.a.cfg.Client, api.Key{Namespace: ns, Name: name})
	return cm, missing(err, "configmap", name)
}

// Secret implements podspec.Lookup.
func (s *sources) Secret(ctx context.Context, ns, name string) (*corev1.Secret, error) {
	secret, err := client.Get[*corev1.Secret](ctx, s.a.cfg.Client, api.Key{Namespace: ns, Name: name})
	return secret, missing(err, "secret", name)
}

// missing says that there is no such object in the words that Kubernetes' node agent has for it, which people search for.
func missing(err error, kind, name string) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource(kind), name)
	}
	return err
}

// Services implements podspec.Lookup. Hollow pods have nobody to read the variables.
func (s *sources) Services(ctx context.Context, ns string) ([]*corev1.Service, error) {
	if s.a.cfg.Hollow {
		return nil, nil
	}
	return client.List[*corev1.Service](ctx, s.a.cfg.Client, client.ListOptions{Namespace: ns})
}

// Token implements volume.Source: tokens are renewed at 80 % of their life.
func (s *sources) Token(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	seconds := int64(3600)
	if p.ExpirationSeconds != nil {
		seconds = *p.ExpirationSeconds
	}
	k := tokenKey{pod.UID, pod.Spec.ServiceAccountName, p.Audience, seconds}
	now := time.Now()
	s.mu.Lock()
	t, ok := s.tokens[k]
	s.mu.Unlock()
	if ok && now.Before(t.renew) {
		return t.value, t.renew, nil
	}
	if s.a.cfg.Tokens == nil {
		return "", time.Time{}, fmt.Errorf("failed to fetch token: this agent has no way to ask for service-account tokens")
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	out, err := s.a.cfg.Tokens(ctx, pod.Namespace, pod.Spec.ServiceAccountName, req)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	life := out.Status.ExpirationTimestamp.Sub(now)
	t = token{out.Status.Token, now.Add(min(life*8/10, 24*time.Hour))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[k] = t
	return t.value, t.renew, nil
}

// use watches what the pod's volumes are made from.
func (s *sources) use(w *worker, pod *corev1.Pod) {
	if s.a.cfg.Hollow {
		return
	}
	configMaps, secrets := volume.Sources(pod)
	for _, name := range configMaps {
		s.watch(w, watchKey{"ConfigMap", pod.Namespace, name})
	}
	for _, name := range secrets {
		s.watch(w, watchKey{"Secret", pod.Namespace, name})
	}
}

func (s *sources) watch(w *worker, k watchKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if nw := s.watches[k]; nw != nil {
		nw.users[w] = true
		return
	}
	ctx, cancel := context.WithCancel(s.a.tasks.Context())
	nw := &sourceWatch{users: map[*worker]bool{w: true}, cancel: cancel}
	s.watches[k] = nw
	if !s.a.tasks.Go(func() { s.follow(ctx, k) }) {
		cancel()
	}
}

// release ends the watches that only this pod needed, and forgets its tokens.
func (s *sources) release(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, nw := range s.watches {
		delete(nw.users, w)
		if len(nw.users) == 0 {
			nw.cancel()
			delete(s.watches, k)
		}
	}
	for k := range s.tokens {
		if k.uid == w.uid {
			delete(s.tokens, k)
		}
	}
}

func (s *sources) follow(ctx context.Context, k watchKey) {
	res := api.ConfigMaps
	if k.kind == "Secret" {
		res = api.Secrets
	}
	var r task.Retry
	for first := true; ctx.Err() == nil; first = false {
		w, err := s.a.cfg.Client.Watch(ctx, res, client.ListOptions{Namespace: k.namespace, Name: k.name})
		if err == nil {
			err = s.events(ctx, w, k, first, &r)
			w.Stop()
		}
		if ctx.Err() == nil {
			s.a.log.Warn("watch was lost, trying again", "kind", k.kind, "namespace", k.namespace, "name", k.name, "err", err)
			r.Wait(ctx)
		}
	}
}

// events hands changes to the pods. The state at the very beginning is what they were set up with or later: all are looked at once after
// it, which costs a comparison where nothing changed.
func (s *sources) events(ctx context.Context, w client.Watcher, k watchKey, first bool, r *task.Retry) error {
	synced := false
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		r.Reset()
		for _, e := range events {
			switch e.Type {
			case client.Reset:
				synced, first = false, false
			case client.Synced:
				synced = true
				if !first {
					s.wake(k)
				}
			default:
				if synced {
					s.wake(k)
				}
			}
		}
	}
}

// wake makes the pods that use the object bring their volumes up to date.
func (s *sources) wake(k watchKey) {
	s.mu.Lock()
	var users []*worker
	if nw := s.watches[k]; nw != nil {
		for w := range nw.users {
			users = append(users, w)
		}
	}
	s.mu.Unlock()
	for _, w := range users {
		w.mu.Lock()
		if volume.Refers(w.pod, k.kind, k.name) {
			w.refresh = true
			w.mem.SandboxRetryAt = time.Time{} // what was missing may be there now
			w.notifyLocked()
		}
		w.mu.Unlock()
	}
}
