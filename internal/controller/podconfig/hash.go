package podconfig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
)

// hashLength is how much of the hash is kept, in hexadecimal digits: enough that two revisions of one owner never meet by chance.
const hashLength = 16

// content is what a source holds. salt keeps what is secret from being found out by trying values: whoever may not read a Secret does
// not know its UID either.
type content struct {
	text, binary map[string][]byte
	salt         string
}

// Now is what the ConfigMaps and Secrets that a template uses hold.
type Now struct {
	Hash    string // "" where something is missing
	Missing string // what a pod cannot start without, in words; "" where all is there
}

// Of reads what the containers of an owner's template get from ConfigMaps and Secrets; nil where its pods do not roll with that.
func Of(ctx context.Context, c client.Client, owner api.Object, t *corev1.PodTemplateSpec) (*Now, error) {
	if on, _ := rollout.ConfigChange(owner.GetAnnotations()); !on {
		return nil, nil
	}
	uses := refs(t)
	contents := map[source]*content{}
	for _, u := range uses {
		if _, ok := contents[u.source]; ok {
			continue
		}
		got, err := read(ctx, c, owner.GetNamespace(), u.source)
		if err != nil {
			return nil, err
		}
		contents[u.source] = got
	}
	now := sum(uses, contents)
	return &now, nil
}

// read returns the content of a source, nil where there is no such object.
func read(ctx context.Context, c client.Client, namespace string, from source) (*content, error) {
	key := api.Key{Namespace: namespace, Name: from.name}
	if from.secret {
		s, err := client.Get[*corev1.Secret](ctx, c, key)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return &content{text: s.Data, salt: string(s.UID)}, nil
	}
	m, err := client.Get[*corev1.ConfigMap](ctx, c, key)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := &content{text: make(map[string][]byte, len(m.Data)), binary: m.BinaryData}
	for k, v := range m.Data {
		out.text[k] = []byte(v)
	}
	return out, nil
}

// sum hashes the uses and what they get. Each part is preceded by its length, so that no two different ones read alike.
func sum(uses []ref, contents map[source]*content) Now {
	h := sha256.New()
	for _, u := range uses {
		part(h, fmt.Sprint(u.secret), u.name, u.key, fmt.Sprint(u.text))
		c := contents[u.source]
		if c == nil {
			if !u.optional {
				return Now{Missing: u.String()}
			}
			part(h, "none")
			continue
		}
		part(h, c.salt)
		if u.key == "" {
			all(h, c.text)
			if !u.text {
				all(h, c.binary)
			}
			continue
		}
		value, ok := c.text[u.key]
		if !ok && !u.text {
			value, ok = c.binary[u.key]
		}
		if !ok && !u.optional {
			return Now{Missing: fmt.Sprintf("key %q of %s", u.key, u)}
		}
		part(h, fmt.Sprint(ok), string(value))
	}
	return Now{Hash: hex.EncodeToString(h.Sum(nil))[:hashLength]}
}

// String names the source of a use.
func (u ref) String() string {
	if u.secret {
		return "Secret " + u.name
	}
	return "ConfigMap " + u.name
}

func all(h hash.Hash, values map[string][]byte) {
	part(h, fmt.Sprint(len(values)))
	for _, k := range slices.Sorted(maps.Keys(values)) {
		part(h, k, string(values[k]))
	}
}

func part(h hash.Hash, parts ...string) {
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
}

// Named is the template by which a revision is named: that of its pods, and what these use, where they roll with it.
func Named(t *corev1.PodTemplateSpec, hash string) *corev1.PodTemplateSpec {
	if hash == "" {
		return t
	}
	out := *t
	out.Annotations = map[string]string{rollout.ConfigHash: hash}
	maps.Copy(out.Annotations, t.Annotations)
	return &out
}
