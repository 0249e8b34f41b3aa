// Package devices gets the devices of pods' ResourceClaims ready on the node, by the drivers that have registered there (KEP-4381).
//
// What flows through it: drivers register (package plugins), and are called when a pod that has a claim of theirs is started ([Manager.Prepare]) and has ended ([Manager.Unprepare]). What a driver names of its devices - CDI
// ids - goes to the runtime with each container that asks for them ([Manager.For]). What was prepared, and for which pods, stands in a file.
//
// What must stay true: it is written down that a claim is being prepared before its driver is asked, so that a restart forgets none
// (TestARestartForgetsNothing); a claim of several pods is given back with the last (TestAClaimOfTwoPods); a driver that is not there or
// fails keeps pods waiting, which say so, and is asked again (TestPodsWaitForTheirDriver).
package devices

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/plugins"
)

// callTimeout is how long a driver has for one answer, as the kubelet has it.
const callTimeout = 45 * time.Second

// Settings are what a Manager needs.
type Settings struct {
	Client client.Client
	// Dir is the agent's data directory: Dir/dra_state.json is the Manager's own.
	Dir string
	// Root is where drivers' sockets are.
	Root plugins.Root
	Log  *slog.Logger
	// Arrived is called when a driver has registered: pods may wait for it.
	Arrived func()
}

// Manager knows drivers and what they have prepared. Make one with New, and Close it.
type Manager struct {
	Settings

	mu      sync.Mutex
	drivers map[string][]*driver // by name; the newest last
	claims  map[types.UID]*Claim
}

// New returns a Manager that knows what an earlier one had prepared.
func New(s Settings) (*Manager, error) {
	m := &Manager{Settings: s, drivers: map[string][]*driver{}}
	var err error
	if m.claims, err = load(m.file()); err != nil {
		return nil, fmt.Errorf("reading what devices are prepared: %w", err)
	}
	return m, nil
}

func (m *Manager) file() string { return filepath.Join(m.Dir, "dra_state.json") }

// Prepare gets all claims of a pod ready. It may be called again.
func (m *Manager) Prepare(ctx context.Context, pod *corev1.Pod) error {
	for i := range pod.Spec.ResourceClaims {
		claim, err := m.claimOf(ctx, pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return err
		}
		if claim == nil {
			continue
		}
		if err := m.note(claim, pod.UID); err != nil {
			return err
		}
		for _, driver := range driversOf(claim) {
			if err := m.prepare(ctx, claim, driver); err != nil {
				return fmt.Errorf("claim %s: %w", api.KeyOf(claim), err)
			}
		}
	}
	return nil
}

// claimOf reads the claim that an entry of a pod means; nil if none is needed. The pod must be one of its users.
func (m *Manager) claimOf(ctx context.Context, pod *corev1.Pod, entry *corev1.PodResourceClaim) (*resourcev1.ResourceClaim, error) {
	name, made, err := resourceclaim.Name(pod, entry)
	if err != nil || name == nil {
		return nil, err
	}
	claim, err := client.Get[*resourcev1.ResourceClaim](ctx, m.Client, api.Key{Namespace: pod.Namespace, Name: *name})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("failed to fetch ResourceClaim %s referenced by pod %s: %w", *name, pod.Name, err)
	}
	if err != nil {
		return nil, err
	}
	if made {
		if err := resourceclaim.IsForPod(pod, claim, false); err != nil {
			return nil, err
		}
	}
	if claim.Status.Allocation == nil {
		return nil, fmt.Errorf("claim %s is not allocated", api.KeyOf(claim))
	}
	if !resourceclaim.IsReservedForPod(pod, claim, false) {
		return nil, fmt.Errorf("pod %s (%s) is not allowed to use ResourceClaim %s (%s)", api.KeyOf(pod), pod.UID, api.KeyOf(claim), claim.UID)
	}
	return claim, nil
}

// driversOf returns the drivers of a claim's devices, each once, in order.
func driversOf(claim *resourcev1.ResourceClaim) []string {
	var out []string
	for _, r := range claim.Status.Allocation.Devices.Results {
		if !slices.Contains(out, r.Driver) {
			out = append(out, r.Driver)
		}
	}
	slices.Sort(out)
	return out
}

// note writes down that a claim is to be prepared for a pod.
func (m *Manager) note(claim *resourcev1.ResourceClaim, pod types.UID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.claims[claim.UID]
	if c != nil && slices.Contains(c.Pods, pod) {
		return nil
	}
	next := &Claim{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, Drivers: driversOf(claim), Prepared: map[string][]Device{}}
	if c != nil {
		*next = *c
	}
	next.Pods = append(slices.Clone(next.Pods), pod)
	m.claims[claim.UID] = next
	return m.save()
}

// save writes the state down. m.mu must be held.
func (m *Manager) save() error {
	if err := store(m.file(), m.claims); err != nil {
		return fmt.Errorf("writing down what devices are prepared: %w", err)
	}
	return nil
}

// prepare asks one driver, unless it has prepared the claim.
func (m *Manager) prepare(ctx context.Context, claim *resourcev1.ResourceClaim, name string) error {
	m.mu.Lock()
	c := m.claims[claim.UID]
	d := m.driver(name)
	m.mu.Unlock()
	if c == nil {
		return fmt.Errorf("its pod ended meanwhile")
	}
	if _, ready := c.Prepared[name]; ready {
		return nil
	}
	if d == nil {
		return fmt.Errorf("DRA driver %s is not registered on this node", name)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := d.client.NodePrepareResources(call, &dra.NodePrepareResourcesRequest{Claims: []*dra.Claim{c.wire()}})
	if err != nil {
		return fmt.Errorf("NodePrepareResources of driver %s: %w", name, err)
	}
	got, ok := answer.GetClaims()[string(claim.UID)]
	switch {
	case !ok:
		return fmt.Errorf("NodePrepareResources of driver %s left out the claim", name)
	case got.GetError() != "":
		return fmt.Errorf("NodePrepareResources of driver %s failed: %s", name, got.GetError())
	}
	devices := make([]Device, 0, len(got.GetDevices()))
	for _, dev := range got.GetDevices() {
		devices = append(devices, Device{Requests: dev.GetRequestNames(), Pool: dev.GetPoolName(), Name: dev.GetDeviceName(), CDI: dev.GetCdiDeviceIds()})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c = m.claims[claim.UID]; c != nil {
		c.Prepared[name] = devices
	}
	return m.save()
}

// driver returns the newest driver of a name, nil if there is none. m.mu must be held.
func (m *Manager) driver(name string) *driver {
	if all := m.drivers[name]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// For returns the CDI ids of the devices that a container of a pod gets.
func (m *Manager) For(pod *corev1.Pod, c *corev1.Container) []string {
	if len(c.Resources.Claims) == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return idsFor(pod, c, m.claims)
}

// Unprepare gives back the claims that only this pod has.
func (m *Manager) Unprepare(ctx context.Context, pod types.UID) error {
	m.mu.Lock()
	var last []*Claim
	changed := false
	for _, c := range m.claims {
		switch i := slices.Index(c.Pods, pod); {
		case i < 0:
		case len(c.Pods) > 1:
			c.Pods = slices.Delete(slices.Clone(c.Pods), i, i+1)
			changed = true
		default:
			last = append(last, c)
		}
	}
	var err error
	if changed {
		err = m.save()
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	for _, c := range last {
		if err := m.unprepare(ctx, c); err != nil {
			return fmt.Errorf("claim %s/%s: %w", c.Namespace, c.Name, err)
		}
	}
	return nil
}

// unprepare asks the drivers of a claim, all of which may have begun, and forgets it.
func (m *Manager) unprepare(ctx context.Context, c *Claim) error {
	for _, name := range c.Drivers {
		m.mu.Lock()
		d := m.driver(name)
		m.mu.Unlock()
		if d == nil {
			return fmt.Errorf("DRA driver %s is not registered on this node", name)
		}
		call, cancel := context.WithTimeout(ctx, callTimeout)
		answer, err := d.client.NodeUnprepareResources(call, &dra.NodeUnprepareResourcesRequest{Claims: []*dra.Claim{c.wire()}})
		cancel()
		if err != nil {
			return fmt.Errorf("NodeUnprepareResources of driver %s: %w", name, err)
		}
		if got, ok := answer.GetClaims()[string(c.UID)]; !ok || got.GetError() != "" {
			return fmt.Errorf("NodeUnprepareResources of driver %s failed: %s", name, got.GetError())
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.claims, c.UID)
	return m.save()
}

// Pods returns the pods for which something is prepared.
func (m *Manager) Pods() []types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []types.UID
	for _, c := range m.claims {
		for _, p := range c.Pods {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}
