package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Users of pods with a user namespace of their own (hostUsers: false, KEP-127) are mapped to 65536 users of the node each; the first
// block is the node's own.
const (
	usersPerPod = 65536
	maxBlocks   = 1024
)

// userNamespaces gives out blocks of users. A block is kept in the pod's directory, so that it outlives the agent.
type userNamespaces struct {
	dir string // DATA/pods; "" on hollow nodes

	mu     sync.Mutex
	blocks map[types.UID]int
}

// load finds the blocks that pods hold already.
func (u *userNamespaces) load(dir string) {
	u.blocks, u.dir = map[types.UID]int{}, dir
	if dir == "" {
		return
	}
	entries, _ := os.ReadDir(u.dir)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(u.dir, e.Name(), "userns"))
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			u.blocks[types.UID(e.Name())] = n
		}
	}
}

// block returns the pod's block, taking a free one where it has none.
func (u *userNamespaces) block(uid types.UID) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n, ok := u.blocks[uid]; ok {
		return n, nil
	}
	taken := map[int]bool{}
	for _, n := range u.blocks {
		taken[n] = true
	}
	for n := 1; n < maxBlocks; n++ {
		if taken[n] {
			continue
		}
		if u.dir != "" {
			dir := filepath.Join(u.dir, string(uid))
			if err := os.MkdirAll(dir, 0o750); err != nil {
				return 0, err
			}
			if err := os.WriteFile(filepath.Join(dir, "userns"), []byte(strconv.Itoa(n)), 0o640); err != nil {
				return 0, err
			}
		}
		u.blocks[uid] = n
		return n, nil
	}
	return 0, fmt.Errorf("all %d user namespaces of the node are taken", maxBlocks-1)
}

func (u *userNamespaces) release(uid types.UID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.blocks, uid)
}

// userNamespace returns the mapping of a pod that wants its own. A runtime that would silently ignore it is refused.
func (w *Worker) userNamespace(ctx context.Context, pod *corev1.Pod) (*cri.UserNamespace, error) {
	st, err := w.host.Runtime.Status(ctx)
	if err != nil {
		return nil, err
	}
	supported := false
	for _, h := range st.RuntimeHandlers {
		supported = supported || h.Name == "" && h.GetFeatures().GetUserNamespaces()
	}
	if !supported {
		return nil, errors.New("spec.hostUsers: false asks for a user namespace, which this container runtime does not support")
	}
	n, err := w.set.users.block(pod.UID)
	if err != nil {
		return nil, err
	}
	m := []*cri.IDMapping{{HostId: uint32(n * usersPerPod), ContainerId: 0, Length: usersPerPod}}
	return &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: m, Gids: m}, nil
}
