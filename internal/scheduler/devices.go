package scheduler

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/scheduler/devices"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// deviceSources are the watches of what package devices knows.
func (s *Scheduler) deviceSources() []*source {
	known := s.state.Devices()
	// helped says to those that wait for devices that something has changed.
	helped := func(f func(api.Object)) func(api.Object) {
		return func(o api.Object) {
			f(o)
			s.helps |= placement.DevicesChanged
		}
	}
	gone := func(f func(name string)) func(api.Key) {
		return func(key api.Key) {
			f(key.Name)
			s.helps |= placement.DevicesChanged
		}
	}
	return []*source{
		{resource: api.DeviceClasses, set: helped(func(o api.Object) { known.SetClass(o.(*resourcev1.DeviceClass)) }), remove: gone(known.RemoveClass), keys: known.ClassKeys},
		{resource: api.DeviceTaintRules, set: helped(func(o api.Object) { known.SetRule(o.(*resourcev1.DeviceTaintRule)) }), remove: gone(known.RemoveRule), keys: known.RuleKeys},
		{resource: api.ResourceSlices, set: helped(func(o api.Object) { known.SetSlice(o.(*resourcev1.ResourceSlice)) }), remove: gone(known.RemoveSlice), keys: known.SliceKeys},
		{resource: api.ResourceClaims, keys: known.ClaimKeys,
			set: func(o api.Object) {
				if known.SetClaim(o.(*resourcev1.ResourceClaim)) {
					s.helps |= placement.DevicesChanged
				}
			},
			remove: func(key api.Key) {
				known.RemoveClaim(key)
				s.helps |= placement.DevicesChanged
			}},
	}
}

// claimed is what binding a pod does to its claims, in the client's terms.
func claimed(claims []devices.Claim) []client.Claim {
	if len(claims) == 0 {
		return nil
	}
	out := make([]client.Claim, len(claims))
	for i, c := range claims {
		out[i] = client.Claim{Key: c.Key, UID: string(c.UID), Allocation: c.Allocation}
	}
	return out
}

// boundWith notes since which revision the claims of a pod have what was found for them.
func (s *Scheduler) boundWith(f *flight, pod api.Object) {
	if len(f.claims) == 0 {
		return
	}
	at := ""
	if pod != nil {
		at = pod.GetResourceVersion()
	}
	s.state.Devices().Bound(f.pod.UID, at)
}
