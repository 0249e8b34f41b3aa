package sources

import (
	"context"
	"log/slog"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// TokenRequester asks the API for a token of a service account (the serviceaccounts/token subresource).
type TokenRequester func(ctx context.Context, namespace, serviceAccount string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)

// User is a pod that is made from what is watched.
type User interface {
	UID() types.UID
	// SourceChanged says that an object of that kind and name, in the pod's namespace, may have changed.
	SourceChanged(kind, name string)
}

// Settings are what the sources need.
type Settings struct {
	Client client.Client
	Tasks  *task.Group
	Tokens TokenRequester
	Log    *slog.Logger
	// Hollow pods have no process that would read anything.
	Hollow bool
}

// Sources reads the objects that pods are made from, keeps their tokens, and wakes pods when a ConfigMap or Secret that one of their
// volumes shows has changed.
type Sources struct {
	Settings

	mu      sync.Mutex
	tokens  map[tokenKey]token
	watches map[watchKey]*sourceWatch
}

type watchKey struct {
	kind, namespace, name string
}

type sourceWatch struct {
	users  map[User]bool
	cancel context.CancelFunc
}

// New returns sources that watch nothing yet.
func New(settings Settings) *Sources {
	return &Sources{Settings: settings, tokens: map[tokenKey]token{}, watches: map[watchKey]*sourceWatch{}}
}

// Use watches what the pod's volumes are made from.
func (s *Sources) Use(w User, pod *corev1.Pod) {
	if s.Hollow {
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

func (s *Sources) watch(w User, k watchKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if nw := s.watches[k]; nw != nil {
		nw.users[w] = true
		return
	}
	ctx, cancel := context.WithCancel(s.Tasks.Context())
	nw := &sourceWatch{users: map[User]bool{w: true}, cancel: cancel}
	s.watches[k] = nw
	if !s.Tasks.Go(func() { s.follow(ctx, k) }) {
		cancel()
	}
}

// Release ends the watches that only this pod needed, and forgets its tokens.
func (s *Sources) Release(w User) {
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
		if k.uid == w.UID() {
			delete(s.tokens, k)
		}
	}
}

func (s *Sources) follow(ctx context.Context, k watchKey) {
	res := api.ConfigMaps
	if k.kind == "Secret" {
		res = api.Secrets
	}
	var r task.Retry
	for first := true; ctx.Err() == nil; first = false {
		w, err := s.Client.Watch(ctx, res, client.ListOptions{Namespace: k.namespace, Name: k.name})
		if err == nil {
			err = s.events(ctx, w, k, first, &r)
			w.Stop()
		}
		if ctx.Err() == nil {
			s.Log.Warn("watch was lost, trying again", "kind", k.kind, "namespace", k.namespace, "name", k.name, "err", err)
			r.Wait(ctx)
		}
	}
}

// events hands changes to the pods. The state at the very beginning is what they were set up with or later: all are looked at once after
// it, which costs a comparison where nothing changed.
func (s *Sources) events(ctx context.Context, w client.Watcher, k watchKey, first bool, r *task.Retry) error {
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
func (s *Sources) wake(k watchKey) {
	s.mu.Lock()
	var users []User
	if nw := s.watches[k]; nw != nil {
		for w := range nw.users {
			users = append(users, w)
		}
	}
	s.mu.Unlock()
	for _, w := range users {
		w.SourceChanged(k.kind, k.name)
	}
}
