// Package servicecidr keeps ServiceCIDRs, the ranges of cluster IPs, as KEP-1880 has it: a range is protected by a finalizer, says that it is
// ready, and goes only when no address of a Service would be left without a range.
//
// What flows through it: a ServiceCIDR, its siblings and, once it is being deleted, the IPAddresses of Services are read; [plan] says which
// step is next. What must stay true: addresses are given out of ranges that are ready and stay
// (internal/server/registry); an address never outlives its last range (TestARangeWaitsForItsAddresses).
package servicecidr

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

const (
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// allocated is the value of the label managed-by on addresses of Services.
	allocated = "ipallocator.k8s.io"
)

type reconciler struct {
	client client.Client
}

// New declares the ServiceCIDR controller.
func New(c client.Client) controller.Controller {
	r := &reconciler{client: c}
	return controller.Controller{
		Name: "servicecidr",
		Watches: []controller.Watch{
			{Resource: api.ServiceCIDRs, Keys: func(e client.Event) []api.Key { return append(r.leaving(), api.KeyOf(e.Object)) }},
			{Resource: api.IPAddresses, Keys: func(e client.Event) []api.Key {
				if e.Type == client.Modified || e.Object.GetLabels()[networkingv1.LabelManagedBy] != allocated {
					return nil
				}
				return r.leaving()
			}},
		},
		Writes: []controller.Write{
			controller.Sets(api.ServiceCIDRs, "status"),
			controller.Sets(api.ServiceCIDRs, "metadata", "finalizers", finalizer),
		},
		Reconciler: r,
	}
}

// leaving returns the keys of the ranges that are being deleted: an address or another range that came or went may let them go.
func (r *reconciler) leaving() []api.Key {
	all, err := client.List[*networkingv1.ServiceCIDR](context.Background(), r.client, client.ListOptions{})
	if err != nil {
		return nil
	}
	var keys []api.Key
	for _, c := range all {
		if c.DeletionTimestamp != nil {
			keys = append(keys, api.KeyOf(c))
		}
	}
	return keys
}

// Reconcile takes the next step with the range named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	cidr, err := client.Get[*networkingv1.ServiceCIDR](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	all, err := client.List[*networkingv1.ServiceCIDR](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	var addresses []netip.Addr
	if cidr.DeletionTimestamp != nil {
		if addresses, err = r.addresses(ctx); err != nil {
			return 0, err
		}
	}
	act := plan(cidr, all, addresses, time.Now())
	return act.after, r.apply(ctx, cidr, act)
}

// addresses returns the cluster IPs of all Services.
func (r *reconciler) addresses(ctx context.Context) ([]netip.Addr, error) {
	all, err := client.List[*networkingv1.IPAddress](ctx, r.client, client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{networkingv1.LabelManagedBy: allocated})})
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range all {
		if ip, err := netip.ParseAddr(a.Name); err == nil {
			out = append(out, ip)
		}
	}
	return out, nil
}

func (r *reconciler) apply(ctx context.Context, cidr *networkingv1.ServiceCIDR, act action) error {
	var err error
	if act.protect || act.release {
		_, err = client.Mutate(ctx, r.client, api.KeyOf(cidr), "", func(o *networkingv1.ServiceCIDR) bool {
			had := slices.Contains(o.Finalizers, finalizer)
			switch {
			case o.UID != cidr.UID || had == act.protect:
				return false
			case act.protect:
				o.Finalizers = append(o.Finalizers, finalizer)
			default:
				o.Finalizers = slices.DeleteFunc(o.Finalizers, func(f string) bool { return f == finalizer })
			}
			return true
		})
	}
	if err == nil && act.condition != nil {
		_, err = client.Mutate(ctx, r.client, api.KeyOf(cidr), "status", func(o *networkingv1.ServiceCIDR) bool {
			c := *act.condition
			c.LastTransitionTime = metav1.Now()
			return o.UID == cidr.UID && apimeta.SetStatusCondition(&o.Status.Conditions, c)
		})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("writing ServiceCIDR %s: %w", cidr.Name, err)
	}
	return nil
}
