package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// nodeIDs is the annotation of a Node with the name that each driver has for it, as JSON.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// info is what a driver says of the node.
type info struct {
	driver, id string
	limit      int64 // volumes; 0 means no limit that is known
	topology   map[string]string
}

func infoOf(driver string, r *spec.NodeGetInfoResponse) info {
	return info{driver: driver, id: r.GetNodeId(), limit: r.GetMaxVolumesPerNode(), topology: r.GetAccessibleTopology().GetSegments()}
}

// entry is what stands in the CSINode.
func (i info) entry() storagev1.CSINodeDriver {
	d := storagev1.CSINodeDriver{Name: i.driver, NodeID: i.id, TopologyKeys: slices.Sorted(maps.Keys(i.topology))}
	if i.limit > 0 {
		d.Allocatable = &storagev1.VolumeNodeResources{Count: new(int32(min(i.limit, math.MaxInt32)))}
	}
	return d
}

// placed returns the drivers of a CSINode with the entry of one, which may be nil: then it has none. clash says that an entry of that name is
// there which says something else of the node: the API takes the new one only once that is gone.
func placed(all []storagev1.CSINodeDriver, name string, entry *storagev1.CSINodeDriver) (next []storagev1.CSINodeDriver, clash bool) {
	next = make([]storagev1.CSINodeDriver, 0, len(all)+1)
	for _, d := range all {
		if d.Name != name {
			next = append(next, d)
			continue
		}
		if entry != nil {
			had := *d.DeepCopy()
			had.Allocatable = entry.Allocatable
			clash = !equality.Semantic.DeepEqual(had, *entry)
		}
	}
	if entry != nil {
		next = append(next, *entry)
	}
	return next, clash
}

// labelled writes into a Node what a driver says of it. It reports whether that was news; a label that is there and says something else is an
// error: it tells the scheduler where the node is, and somebody else relies on it.
func labelled(node *corev1.Node, i info) (changed bool, err error) {
	ids := map[string]string{}
	if text := node.Annotations[nodeIDs]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			return false, fmt.Errorf("annotation %s of the node: %w", nodeIDs, err)
		}
	}
	for key, value := range i.topology {
		if had, ok := node.Labels[key]; ok && had != value {
			return false, fmt.Errorf("detected topology value collision: driver reported %q:%q but existing label is %q:%q", key, value, key, had)
		}
	}
	if ids[i.driver] != i.id {
		if ids[i.driver] = i.id; i.id == "" {
			delete(ids, i.driver)
		}
		changed = true
		if len(ids) == 0 {
			delete(node.Annotations, nodeIDs)
		} else {
			text, err := json.Marshal(ids)
			if err != nil {
				return false, err
			}
			metav1.SetMetaDataAnnotation(&node.ObjectMeta, nodeIDs, string(text))
		}
	}
	for key, value := range i.topology {
		if node.Labels[key] != value {
			metav1.SetMetaDataLabel(&node.ObjectMeta, key, value)
			changed = true
		}
	}
	return changed, nil
}

// present writes down what a driver says of the node.
func (m *Manager) present(ctx context.Context, i info) error {
	if i.id == "" {
		return fmt.Errorf("driver %s has no name for the node (node_id)", i.driver)
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	node, err := m.label(ctx, i)
	if err != nil {
		return err
	}
	entry := i.entry()
	return m.place(ctx, node, i.driver, &entry)
}

// withdraw takes back what a driver has said that is gone. Where the node is stays: volumes are there.
func (m *Manager) withdraw(ctx context.Context, driver string) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	if err := m.place(ctx, nil, driver, nil); err != nil {
		return err
	}
	_, err := m.label(ctx, info{driver: driver})
	return err
}

func (m *Manager) label(ctx context.Context, i info) (*corev1.Node, error) {
	var failed error
	node, err := client.Mutate(ctx, m.Client, api.Key{Name: m.Node}, "", func(n *corev1.Node) bool {
		var changed bool
		changed, failed = labelled(n, i)
		return changed && failed == nil
	})
	if err == nil {
		err = failed
	}
	return node, err
}

// place writes the entry of a driver into the node's CSINode, or takes it out where it is nil. A CSINode that is not there is made for node.
func (m *Manager) place(ctx context.Context, node *corev1.Node, driver string, entry *storagev1.CSINodeDriver) error {
	key := api.Key{Name: m.Node}
	write := func(entry *storagev1.CSINodeDriver) (clash bool, err error) {
		_, err = client.Mutate(ctx, m.Client, key, "", func(n *storagev1.CSINode) bool {
			next, bad := placed(n.Spec.Drivers, driver, entry)
			if clash = bad; clash {
				next, _ = placed(n.Spec.Drivers, driver, nil)
			}
			changed := !equality.Semantic.DeepEqual(next, n.Spec.Drivers)
			n.Spec.Drivers = next
			return changed
		})
		return clash, err
	}
	clash, err := write(entry)
	if err == nil && clash {
		_, err = write(entry)
	}
	if !apierrors.IsNotFound(err) || entry == nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	fresh := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: m.Node}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{*entry}}}
	if node != nil {
		fresh.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	}
	_, err = m.Client.Create(ctx, fresh)
	return err
}
