package podconfig

import (
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// Users knows which owners of one kind use which ConfigMaps and Secrets, of those that roll with them. It is a memory that the watches
// fill: a controller that starts is told of every owner.
type Users struct {
	template func(owner api.Object) *corev1.PodTemplateSpec

	mu    sync.Mutex
	uses  map[api.Key][]source        // by owner
	users map[at]map[api.Key]struct{} // owners by what they use
}

// at is a source with its namespace.
type at struct {
	namespace string
	source
}

// NewUsers returns Users of a kind, which template reads the template of.
func NewUsers(template func(owner api.Object) *corev1.PodTemplateSpec) *Users {
	return &Users{template: template, uses: map[api.Key][]source{}, users: map[at]map[api.Key]struct{}{}}
}

// Note takes in an event of an owner.
func (u *Users) Note(e client.Event) {
	key := api.KeyOf(e.Object)
	var uses []source
	if on, _ := rollout.ConfigChange(e.Object.GetAnnotations()); on && e.Type != client.Deleted {
		for _, r := range refs(u.template(e.Object)) {
			uses = append(uses, r.source)
		}
		uses = slices.Compact(uses)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.uses[key] {
		where := at{key.Namespace, s}
		if delete(u.users[where], key); len(u.users[where]) == 0 {
			delete(u.users, where)
		}
	}
	if delete(u.uses, key); len(uses) == 0 {
		return
	}
	u.uses[key] = uses
	for _, s := range uses {
		where := at{key.Namespace, s}
		if u.users[where] == nil {
			u.users[where] = map[api.Key]struct{}{}
		}
		u.users[where][key] = struct{}{}
	}
}

// Watches are of what the owners may use.
func (u *Users) Watches() []controller.Watch {
	return []controller.Watch{
		{Resource: api.ConfigMaps, Keys: func(e client.Event) []api.Key { return u.keys(e, false) }},
		{Resource: api.Secrets, Keys: func(e client.Event) []api.Key { return u.keys(e, true) }},
	}
}

// keys maps a ConfigMap or Secret whose data has changed to its users.
func (u *Users) keys(e client.Event, secret bool) []api.Key {
	if e.Type == client.Modified && e.Old != nil && !changed(e.Old, e.Object) {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []api.Key
	for key := range u.users[at{e.Object.GetNamespace(), source{secret, e.Object.GetName()}}] {
		out = append(out, key)
	}
	return out
}

func changed(old, now api.Object) bool {
	switch now := now.(type) {
	case *corev1.ConfigMap:
		was := old.(*corev1.ConfigMap)
		return was.UID != now.UID || !apiequality.Semantic.DeepEqual(was.Data, now.Data) || !apiequality.Semantic.DeepEqual(was.BinaryData, now.BinaryData)
	case *corev1.Secret:
		was := old.(*corev1.Secret)
		return was.UID != now.UID || !apiequality.Semantic.DeepEqual(was.Data, now.Data)
	}
	return true
}
