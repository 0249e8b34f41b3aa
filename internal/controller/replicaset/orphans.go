package replicaset

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

// orphans remembers for which ReplicaSets pods without a controller were looked for. Looking means visiting every pod of the
// namespace, which must not happen at every change of a pod; once is enough, and again when an orphan that matches shows up.
// It is a memory of convenience: forgetting costs one look.
type orphans struct {
	mu     sync.Mutex
	looked map[api.Key]types.UID
}

func newOrphans() *orphans { return &orphans{looked: map[api.Key]types.UID{}} }

// expected says whether to look for orphans of the ReplicaSet, and takes it that this is done. What shows up from here on is told by
// seen, so it must be asked before looking.
func (o *orphans) expected(key api.Key, uid types.UID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.looked[key] == uid {
		return false
	}
	o.looked[key] = uid
	return true
}

// seen says that there may be orphans for the ReplicaSet.
func (o *orphans) seen(key api.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.looked, key)
}
