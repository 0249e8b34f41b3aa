package sources

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
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
	// SourceChanged says that what the pod's volumes are built from may have changed.
	SourceChanged(ref volume.Ref)
}

// Warner records events of pods.
type Warner interface {
	Warning(pod *corev1.Pod, container, reason, message string)
}

// Settings are what the sources need.
type Settings struct {
	Client client.Client
	// Node is this node's name.
	Node   string
	Events Warner
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

	mu          sync.Mutex
	tokens      map[tokenKey]token
	credentials map[credentialKey]*heldCredential
	watches     map[watchKey]*sourceWatch
}

type watchKey struct {
	volume.Ref
	namespace string // of what has one
}

type sourceWatch struct {
	users  map[User]bool
	cancel context.CancelFunc
}

// New returns sources that watch nothing yet.
func New(settings Settings) *Sources {
	return &Sources{Settings: settings, tokens: map[tokenKey]token{}, credentials: map[credentialKey]*heldCredential{}, watches: map[watchKey]*sourceWatch{}}
}

// Use watches what the pod's volumes are made from.
func (s *Sources) Use(w User, pod *corev1.Pod) {
	if s.Hollow {
		return
	}
	for _, ref := range volume.Refs(pod) {
		k := watchKey{Ref: ref}
		if ref.Name != "" {
			k.namespace = pod.Namespace
		}
		s.watch(w, k)
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
	for k := range s.credentials {
		if k.uid == w.UID() {
			delete(s.credentials, k)
		}
	}
}

func (s *Sources) follow(ctx context.Context, k watchKey) {
	var res *api.Resource
	opts, concerns := client.ListOptions{Namespace: k.namespace, Name: k.Name}, func(User, client.Batch) bool { return true }
	switch k.Kind {
	case volume.ConfigMap:
		res = api.ConfigMaps
	case volume.Secret:
		res = api.Secrets
	case volume.Claim:
		res = api.PersistentVolumeClaims
	case volume.ClusterTrustBundle:
		res = api.ClusterTrustBundles
	case volume.PodCertificateRequest:
		res, concerns = api.PodCertificateRequests, asked
		opts = client.ListOptions{Index: client.IndexNode, Value: s.Node}
	}
	// The first batch wakes, too: a pod may have been set up from a state before it. That costs a comparison where nothing changed.
	client.Follow(ctx, s.Log, s.Client, res, opts, func(b client.Batch) { s.wake(k, b, concerns) })
}

// asked reports whether one of the requests in a batch is for the pod.
func asked(w User, b client.Batch) bool {
	return slices.ContainsFunc(b.Events, func(e client.Event) bool {
		return e.Object.(*certificatesv1.PodCertificateRequest).Spec.PodUID == w.UID()
	})
}

// wake makes the pods that use the object bring their volumes up to date.
func (s *Sources) wake(k watchKey, b client.Batch, concerns func(User, client.Batch) bool) {
	s.mu.Lock()
	var users []User
	if nw := s.watches[k]; nw != nil {
		for w := range nw.users {
			users = append(users, w)
		}
	}
	s.mu.Unlock()
	for _, w := range users {
		if concerns(w, b) {
			w.SourceChanged(k.Ref)
		}
	}
}
